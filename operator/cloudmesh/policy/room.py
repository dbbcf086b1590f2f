"""What is left while machines are handed out: free capacity, limits of accounts, quotas."""

from __future__ import annotations

from cloudmesh.policy.model import Request
from cloudmesh.policy.offers import UNLIMITED, OfferTable


class Room:
    """Room of a table's offers, shared by all pools of a request; what is pinned has been taken off before."""

    def __init__(self, request: Request, table: OfferTable) -> None:
        self._table = table
        self._taken: dict[int, int] = {}
        self._accounts = {table.account.code(name): left for name, left in request.account_limits.items()}
        self._quotas = {table.quota.code(name): left for name, left in request.quotas.items()}
        # A name that the table doesn't have would otherwise stand for every unknown one.
        self._accounts.pop(-1, None)
        self._quotas.pop(-1, None)

    def fits(self, row: int) -> int:
        """How many machines of a row still fit, `UNLIMITED` if nothing limits them."""
        table = self._table
        left = int(table.free[row])
        if left != UNLIMITED:
            left -= self._taken.get(row, 0)
        account = self._accounts.get(int(table.account.codes[row]))
        if account is not None and account < left:
            left = account
        quota = self._quotas.get(int(table.quota.codes[row]))
        if quota is not None and (vcpu := int(table.milli_vcpu[row])) > 0:
            left = min(left, quota // vcpu)
        return max(0, left)

    def take(self, row: int, count: int) -> None:
        """Uses room for machines of a row; a negative count gives it back."""
        table = self._table
        self._taken[row] = self._taken.get(row, 0) + count
        if (account := int(table.account.codes[row])) in self._accounts:
            self._accounts[account] -= count
        if (quota := int(table.quota.codes[row])) in self._quotas:
            self._quotas[quota] -= count * int(table.milli_vcpu[row])
