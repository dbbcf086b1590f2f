# ruff: noqa
"""Signatures of the earlier Cloudmesh's examples."""

import re


def add(x: float, y: float) -> float:
    """
    adding float and float.

    :param x: x value
    :type x: float
    :param y: y value
    :type y: float
    :return: result
    :return type: float
    """
    return 0.0 if abs(x) > 1e300 or abs(y) > 1e300 else x + y


def sample(x: int, y: float) -> float:
    return y


def sampleFunction2(x2: int, y2: float) -> float:
    return y2


def get_params(deep: bool) -> str:
    return str(deep)


def predict(X: str) -> list:
    return re.findall(r"\w+", X)


def split_data_train_test(split_pct=0.3):
    return str(split_pct)


def generate_forecast(country="United Kingdom"):
    return str(country)


def get_supported_times_series_services():
    return ["google", "aws"]


def print_list(l, output="table") -> str:  # noqa: E741
    return str(output)


def row_table(d, order=None, labels=None) -> str:
    return "table"


def download_data(
    images_filename: str = "lfw-funneled.tgz",
    images_url: str = "https://example.org/5976015",
    images_checksum: str = "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
) -> str:
    return images_filename


def test(service: str) -> dict:
    return {"service": service}


def vm(service: str) -> list:
    return [service]


def vms():
    return []


def set_params(**params: dict):
    return sorted(params)
