// The page of a directory: one module over REST, nothing to build.

const $ = (id) => document.getElementById(id);
const state = { path: "", after: "", view: 0, uploads: 0 };

// Text only, so that no name can be markup.
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const button = (text, onclick, kind = "", label) =>
  h("button", { type: "button", class: kind || undefined, onclick, "aria-label": label }, text);
const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");
const join = (folder, name) => (folder ? `${folder}/${name}` : name);
const parent = (path) => path.split("/").slice(0, -1).join("/");
const sizes = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

function bytes(count) {
  let at = 0;
  while (count >= 1024 && at < sizes.length - 1) {
    count /= 1024;
    at += 1;
  }
  return `${at && count < 10 ? count.toFixed(1) : Math.round(count)} ${sizes[at]}`;
}

const time = (text) => new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

function money(cost) {
  if (!cost) return "not known";
  const amount = Number(cost.amount);
  return `${amount === 0 || amount >= 0.01 ? amount.toFixed(2) : amount.toPrecision(2)} ${cost.currency} a month`;
}

function say(text) {
  $("wrong").textContent = "";
  $("said").textContent = text;
}

function fail(error) {
  if (error.status === 401) return login();
  // behind a dialog nobody would see it
  close();
  $("said").textContent = "";
  $("wrong").textContent = error.message;
  return undefined;
}

const guarded = (work) => (...given) => Promise.resolve(work(...given)).catch(fail);

// -- asking

const authorization = () => sessionStorage.getItem("authorization");

function headers(more = {}) {
  const known = authorization();
  return known ? { ...more, Authorization: known } : more;
}

class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail || `the gateway answers ${status}`);
    this.status = status;
  }
}

async function ask(method, address, body) {
  const given = { method, headers: headers(body ? { "Content-Type": "application/json" } : {}), credentials: "omit" };
  if (body) given.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(address, given);
  } catch {
    throw new Refused(0, { detail: "the gateway doesn't answer: try again" });
  }
  const told = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, told);
  return told;
}

// -- who

function login() {
  sessionStorage.removeItem("authorization");
  for (const id of ["view", "nav", "uploads", "usage"]) $(id).hidden = true;
  $("dialog").close();
  $("login").hidden = false;
  $("user").focus();
}

async function enter(event) {
  event.preventDefault();
  const [user, password, token] = ["user", "password", "token"].map((id) => $(id).value);
  const pair = new TextEncoder().encode(`${user}:${password}`);
  const basic = `Basic ${btoa(String.fromCharCode(...pair))}`;
  sessionStorage.setItem("authorization", token.trim() ? `Bearer ${token.trim()}` : basic);
  try {
    await ask("GET", "/v1/trash?limit=1");
  } catch (error) {
    login();
    $("wrong").textContent = error.message;
    return;
  }
  for (const id of ["password", "token"]) $(id).value = "";
  say("");
  await show();
}

// -- views

async function show() {
  $("login").hidden = true;
  for (const id of ["view", "nav"]) $(id).hidden = false;
  const hash = location.hash.slice(1);
  const trash = hash === "trash";
  const path = trash ? "" : decoded(hash).replace(/^\/+|\/+$/g, "");
  state.view += 1;
  state.path = path;
  document.title = `${$("name").textContent}: ${trash ? "trash" : path ? `/${path}` : "files"}`;
  state.after = "";
  $("tools").hidden = trash;
  for (const link of $("nav").querySelectorAll("a")) {
    if ((link.hash === "#trash") === trash) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("place").replaceChildren(...(trash ? ["Trash"] : crumbs()));
  const [head, load] = trash ? [["Name", "Was in", "Deleted", "Action"], trashed] : [["Name", "Size", "Modified", "Action"], entries];
  const body = h("tbody");
  const titles = head.map((title, at) => h("th", { scope: "col", class: at === 2 ? "wide" : undefined }, title));
  $("list").replaceChildren(h("table", { "aria-labelledby": "place" }, h("thead", {}, h("tr", {}, ...titles)), body));
  const view = state.view;
  const page = async () => {
    const told = await ask("GET", load.address()).catch((error) => elsewhere(error, path));
    if (!told) return;
    if (view !== state.view) return;
    body.append(...told.entries.map(load.row));
    state.after = told.after || "";
    $("more").hidden = !state.after;
    $("more").onclick = guarded(page);
    if (!body.childElementCount) body.append(h("tr", {}, h("td", { colspan: 4 }, "There is nothing here.")));
  };
  $("more").hidden = true;
  await page();
  usage();
  // what was focused may have gone with the old list
  if (document.activeElement === document.body) $("main").focus({ preventScroll: true });
}

function decoded(hash) {
  try {
    return decodeURIComponent(hash);
  } catch {
    throw new Refused(400, { detail: "the address of this page can't be read: go to All files" });
  }
}

// An address may be that of a file: its folder is shown then, and the file in it.
async function elsewhere(error, path) {
  if (error.status !== 404 || !path) throw error;
  const entry = await ask("GET", `/v1/stat/${encoded(path)}`).catch(() => null);
  if (entry?.kind !== "File") throw error;
  history.replaceState(null, "", `#/${encoded(parent(path))}`);
  await show();
  await details(entry);
  return null;
}

const again = guarded(show);

function crumbs() {
  const found = [h("a", { href: "#/" }, "All files")];
  let at = "";
  for (const part of state.path ? state.path.split("/") : []) {
    at = join(at, part);
    found.push(" / ", h("a", { href: `#/${encoded(at)}` }, part));
  }
  found.at(-1).setAttribute("aria-current", "location");
  return found;
}

const pages = (address) => `${address}?limit=200${state.after ? `&after=${encodeURIComponent(state.after)}` : ""}`;

const entries = {
  address: () => pages(`/v1/list/${encoded(state.path)}`),
  row(entry) {
    const folder = entry.kind === "Directory";
    const open = folder
      ? h("a", { href: `#/${encoded(entry.path)}` }, `${entry.name}/`)
      : button(entry.name, guarded(() => details(entry)), "name");
    const leads = entry.link ? h("span", { class: "hint" }, ` link to ${entry.link.store}:/${entry.link.key}`) : null;
    return h("tr", {},
      h("td", { class: "long" }, open, leads),
      h("td", { class: "number" }, folder ? "" : bytes(entry.size)),
      h("td", { class: "wide number" }, time(entry.modified)),
      h("td", {}, button("Details", guarded(() => details(entry)), "", `Details of ${entry.name}`)));
  },
};

const trashed = {
  address: () => pages("/v1/trash"),
  row(entry) {
    const name = entry.path.split("/").at(-1);
    const restore = guarded(async () => {
      await ask("POST", "/v1/restore", { id: entry.id });
      await show();
      say(`${entry.path} is back`);
    });
    return h("tr", {},
      h("td", { class: "long" }, entry.kind === "Directory" ? `${name}/` : name),
      h("td", { class: "long" }, `/${parent(entry.path)}`),
      h("td", { class: "wide number" }, time(entry.deleted)),
      h("td", {}, button("Restore", restore, "", `Restore ${name}`)));
  },
};

async function usage() {
  try {
    const [told, cost] = await Promise.all([ask("GET", "/v1/usage"), ask("GET", "/v1/cost").catch(() => null)]);
    const month = cost?.monthly ? ` ${money({ amount: cost.monthly, currency: cost.currency })}.` : "";
    const stores = told.stores.map((store) => `${store.name} ${store.state}`).join(", ");
    $("usage").textContent = `${told.files} ${told.files === 1 ? "file" : "files"}, ${bytes(told.bytes)}; ${told.pending} wait for copies.${month} Stores: ${stores}.`;
    $("usage").hidden = false;
  } catch {
    $("usage").hidden = true;
  }
}

// -- dialogs

function dialog(title, ...content) {
  $("dialog").replaceChildren(h("h2", { id: "dialog-title" }, title), ...content);
  if (!$("dialog").open) $("dialog").showModal();
}

const close = () => $("dialog").close();

// What was written and chosen, by name, or null. Fields are [name, label, value] or [name, label, choices].
function asked(title, verb, fields) {
  return new Promise((resolve) => {
    const inputs = fields.map(([name, , value]) => (Array.isArray(value)
      ? h("select", { id: `field-${name}` }, ...value.map((one) => h("option", { value: one }, one)))
      : h("input", { id: `field-${name}`, value, autocomplete: "off", required: true })));
    const rows = fields.map(([name, label], at) => h("p", {}, h("label", { for: `field-${name}` }, label), inputs[at]));
    const form = h("form", { method: "dialog" }, ...rows,
      h("div", { class: "buttons" }, h("button", { class: "first" }, verb), button("Cancel", close)));
    let found = null;
    form.addEventListener("submit", () => {
      found = Object.fromEntries(fields.map(([name], at) => [name, inputs[at].value.trim()]));
    });
    $("dialog").addEventListener("close", () => resolve(found), { once: true });
    dialog(title, form);
  });
}

// A text, or null.
function prompted(title, label, value) {
  return new Promise((resolve) => {
    const input = h("input", { id: "answer", value, autocomplete: "off", required: true });
    const form = h("form", { method: "dialog" },
      h("label", { for: "answer" }, label), input,
      h("div", { class: "buttons" }, h("button", { class: "first" }, "OK"), button("Cancel", close)));
    let found = null;
    form.addEventListener("submit", () => { found = input.value.trim(); });
    $("dialog").addEventListener("close", () => resolve(found || null), { once: true });
    dialog(title, form);
    input.select();
  });
}

function confirmed(title, text, verb) {
  return new Promise((resolve) => {
    let found = false;
    const sure = () => { found = true; close(); };
    $("dialog").addEventListener("close", () => resolve(found), { once: true });
    dialog(title, h("p", {}, text), h("div", { class: "buttons" }, button(verb, sure, "bad"), button("Cancel", close)));
  });
}

const facts = (pairs) => h("dl", {}, ...pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

function table(label, head, rows) {
  const one = (at) => (at ? { class: at === 2 ? "long" : undefined, "data-head": head[at] } : { scope: "row" });
  const cells = (row) => row.map((cell, at) => h(at ? "td" : "th", one(at), cell));
  return h("table", { class: "scroll", "aria-label": label },
    h("thead", {}, h("tr", {}, ...head.map((one) => h("th", { scope: "col" }, one)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row)))));
}

async function details(entry) {
  const folder = entry.kind === "Directory";
  const parts = [];
  if (folder) {
    parts.push(facts([["Path", `/${entry.path}`], ["Modified", time(entry.modified)]]));
  } else {
    const at = encoded(entry.path);
    // no rule places a link
    const [where, why, rules] = await Promise.all(
      (entry.link ? ["where"] : ["where", "why", "rules"]).map((question) => ask("GET", `/v1/${question}/${at}`)));
    const tags = Object.entries(entry.tags || {}).map(([name, value]) => `${name}=${value}`).join(", ");
    parts.push(facts([
      ["Path", `/${entry.path}`], ["Size", bytes(entry.size)], ["Modified", time(entry.modified)],
      ["Type", entry.contentType || "not known"], ["SHA-256", entry.sha256 || "not known yet"],
      ...(tags ? [["Tags", tags]] : []),
    ]));
    const lie = where.copies.map((copy) => [
      copy.store, copy.up ? copy.state : `${copy.state}, the store doesn't answer`, copy.key,
      copy.state === "Linked" ? "nothing here" : money(copy.monthly),
    ]);
    parts.push(h("h3", {}, "Where its copies lie"), table("Copies", ["Store", "State", "Object", "Cost"], lie));
    if (entry.link) parts.push(...linked(entry));
    else parts.push(h("p", {}, `Together ${money(sum(where.copies))}.`), ...placed(why), ...movable(entry, rules.rules));
  }
  if (!folder) parts.push(...await older(entry));
  dialog(entry.name, ...parts, h("div", { class: "buttons" },
    folder ? null : button("Download", guarded(() => download(entry)), "first"),
    button("Rename", guarded(() => rename(entry))),
    button("Delete", guarded(() => remove(entry)), "bad"),
    button("Close", close)));
}

// What rows cost together; nothing if that of one isn't known.
function sum(rows) {
  if (!rows.length || rows.some((row) => !row.monthly)) return undefined;
  return { amount: rows.reduce((all, row) => all + Number(row.monthly.amount), 0), currency: rows[0].monthly.currency };
}

const copies = (count) => (count === 1 ? "1 copy" : `${count} copies`);

function placed(why) {
  const rule = `Rule '${why.rule.name}': ${copies(why.rule.copies)}, at least ${why.rule.minCopies} before a write is done.`;
  const stores = why.stores.map((store) => [
    store.store, store.chosen ? "chosen" : "not chosen", store.why, money(store.monthly),
  ]);
  return [h("h3", {}, "Why there"), h("p", {}, rule), table("Stores", ["Store", "Verdict", "Reason", "Cost"], stores)];
}

function movable(entry, rules) {
  if (rules.length < 2) return [];
  const rows = rules.map((rule) => [
    rule.name, rule.possible ? rule.stores.join(", ") || "no store can take it" : copies(rule.copies),
    rule.current ? "places it now" : way(entry, rule), rule.possible ? money(rule.monthly) : "",
    rule.current || !rule.possible ? ""
      : button("Move", guarded(() => replaced(entry, rule)), "", `Move to rule ${rule.name}`),
  ]);
  return [h("h3", {}, "Move by policy"), table("Rules", ["Rule", "Stores", "How", "Cost", "Action"], rows)];
}

function way(entry, rule) {
  if (!rule.possible) return "its size, age, type or name decides";
  const old = entry.tags || {};
  const now = rule.tags || old;
  const said = Object.entries(now).filter(([name, value]) => old[name] !== value).map(([name, value]) => `tag ${name}=${value}`);
  said.push(...Object.keys(old).filter((name) => !(name in now)).map((name) => `no tag ${name}`));
  if (rule.to) said.push(`as /${rule.to}`);
  return said.join(", ");
}

async function replaced(entry, rule) {
  const text = `Rule '${rule.name}' is to place it: ${way(entry, rule)}. Its copies are moved in the background.`;
  if (!(await confirmed(`Move ${entry.name}?`, text, "Move"))) return;
  // what may be refused comes first: its tags stay as they were then
  if (rule.to) {
    if (parent(rule.to)) await ask("PUT", `/v1/directories/${encoded(parent(rule.to))}?parents=true`);
    await ask("POST", "/v1/move", { from: entry.path, to: rule.to });
  }
  if (rule.tags) await ask("PUT", `/v1/tags/${encoded(rule.to || entry.path)}`, rule.tags);
  await show();
  say(`rule '${rule.name}' places /${rule.to || entry.path} now`);
}

function linked(entry) {
  const adopt = guarded(async () => {
    await ask("POST", `/v1/links/${encoded(entry.path)}`, {});
    close();
    await show();
    say(`${entry.name} is a file of this directory now`);
  });
  const text = "A link: it is read where it lies, and nothing here changes it. To adopt it copies it to where the rules place it.";
  return [h("p", {}, text), button("Adopt", adopt)];
}

async function older(entry) {
  const at = encoded(entry.path);
  const told = await ask("GET", `/v1/versions/${at}`);
  if (!told.versions.length) return [];
  const act = (verb, label, version, work) => button(verb, guarded(work), "", `${label} version ${version}`);
  const rows = told.versions.map((one) => [
    String(one.version), bytes(one.size), time(one.replaced),
    h("span", { class: "buttons" },
      act("Restore", "Restore", one.version, async () => {
        await ask("POST", `/v1/versions/${at}`, { version: one.version });
        close();
        await show();
        say(`${entry.name} is as it was in version ${one.version}`);
      }),
      act("Delete", "Delete", one.version, async () => {
        const text = `Version ${one.version} of ${entry.name} is removed for good.`;
        if (!(await confirmed(`Delete version ${one.version}?`, text, "Delete"))) return;
        await ask("DELETE", `/v1/versions/${at}?version=${one.version}`);
        say(`version ${one.version} of ${entry.name} is deleted`);
      })),
  ]);
  return [h("h3", {}, "Older versions"), table("Older versions", ["Version", "Size", "Replaced", "Action"], rows)];
}

// -- changes

async function download(entry) {
  const { url } = await ask("POST", "/page/ticket", { path: entry.path });
  close();
  // the browser itself fetches it, so that a large file needn't lie in memory
  const link = h("a", { href: url, download: entry.name });
  document.body.append(link);
  link.click();
  link.remove();
}

async function rename(entry) {
  const to = await prompted(`Rename ${entry.name}`, "New name, or path from the top with a slash at its beginning", entry.name);
  if (!to || to === entry.name) return;
  const target = to.startsWith("/") ? to.slice(1) : join(parent(entry.path), to);
  await ask("POST", "/v1/move", { from: entry.path, to: target });
  await show();
  say(`${entry.name} is now /${target}`);
}

async function remove(entry) {
  const text = `${entry.path}${entry.kind === "Directory" ? " and all in it" : ""} goes to the trash.`;
  if (!(await confirmed(`Delete ${entry.name}?`, text, "Delete"))) return;
  await ask("DELETE", `/v1/files/${encoded(entry.path)}${entry.kind === "Directory" ? "?recursive=true" : ""}`);
  await show();
  say(`${entry.name} is in the trash`);
}

async function make() {
  const name = await prompted("New folder", "Name", "");
  if (!name) return;
  await ask("PUT", `/v1/directories/${encoded(join(state.path, name))}`);
  await show();
  say(`${name} is made`);
}

async function link() {
  const stores = (await ask("GET", "/v1/usage")).stores.map((store) => store.name);
  const fields = [["store", "Store", stores], ["key", "Object, by its whole key", ""], ["name", "Name here", ""]];
  const found = await asked("New link", "Link", fields);
  if (!found) return;
  const { store, key, name } = found;
  await ask("PUT", `/v1/links/${encoded(join(state.path, name))}`, { store, key });
  await show();
  say(`${name} leads to ${store}:/${key}`);
}

// -- uploads

const waiting = [];
const AT_ONCE = 2;

function add(file, path, replace = false) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Upload of ${path}` });
  const told = h("span", {}, "waits");
  const line = h("li", {}, h("span", { class: "what" }, `/${path} (${bytes(file.size)})`), bar, told);
  const one = { file, path, bar, told, line, replace, request: null };
  one.stop = button("Cancel", () => {
    if (one.request) one.request.abort();
    else waiting.splice(waiting.indexOf(one), 1);
    ended(one, "cancelled");
  }, "", `Cancel the upload of ${path}`);
  line.append(one.stop);
  $("queue").prepend(line);
  $("uploads").hidden = false;
  waiting.push(one);
  next();
}

function ended(one, text, more) {
  one.told.textContent = text;
  one.stop.remove();
  one.bar.hidden = true;
  if (more) one.line.append(more);
}

function next() {
  while (state.uploads < AT_ONCE && waiting.length) send(waiting.shift());
}

function send(one) {
  state.uploads += 1;
  const request = new XMLHttpRequest();
  one.request = request;
  request.open("PUT", `/v1/files/${encoded(one.path)}`);
  const given = { "Content-Type": one.file.type || "application/octet-stream", "Cloudmesh-Modified": `${one.file.lastModified}000` };
  if (!one.replace) given["If-None-Match"] = "*";
  for (const [name, value] of Object.entries(headers(given))) request.setRequestHeader(name, value);
  request.upload.onprogress = (event) => {
    one.bar.max = event.total || 1;
    one.bar.value = event.loaded;
    one.told.textContent = event.loaded === event.total ? "is being stored" : `${Math.floor((100 * event.loaded) / event.total)} %`;
  };
  request.onloadend = () => {
    state.uploads -= 1;
    if (request.status === 200 || request.status === 201) {
      ended(one, "done");
      say(`${one.path} is stored`);
      if (!waiting.length && !state.uploads && !$("view").hidden) again();
    } else if (!one.replace && (request.status === 409 || request.status === 412)) {
      const replace = button("Replace", () => {
        one.line.remove();
        add(one.file, one.path, true);
      }, "bad", `Replace ${one.path}`);
      ended(one, "there is a file of this name", replace);
    } else if (request.status === 401) {
      ended(one, "not logged in");
      login();
    } else if (one.stop.isConnected) {
      let detail = "";
      try { detail = JSON.parse(request.responseText).detail; } catch { detail = "the connection broke off"; }
      ended(one, detail);
      fail(new Error(`${one.path}: ${detail}`));
    }
    next();
  };
  request.send(one.file);
}

async function walk(entry, folder) {
  const path = join(folder, entry.name);
  if (entry.isFile) {
    add(await new Promise((good, bad) => { entry.file(good, bad); }), path);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const found = await new Promise((good, bad) => { reader.readEntries(good, bad); });
    if (!found.length) return;
    for (const one of found) await walk(one, path);
  }
}

function drop(event) {
  event.preventDefault();
  $("view").classList.remove("over");
  if ($("tools").hidden) return undefined;
  const folder = state.path;
  const found = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!found.length) {
    for (const file of event.dataTransfer.files) add(file, join(folder, file.name));
    return undefined;
  }
  return Promise.all(found.map((entry) => walk(entry, folder)));
}

// -- begin

$("login").addEventListener("submit", guarded(enter));
$("leave").addEventListener("click", login);
$("make").addEventListener("click", guarded(make));
$("link").addEventListener("click", guarded(link));
$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  for (const file of $("files").files) add(file, join(state.path, file.name));
  $("files").value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("view").classList.add("over");
});
addEventListener("dragleave", () => $("view").classList.remove("over"));
addEventListener("drop", guarded(drop));
addEventListener("hashchange", () => {
  say("");
  again();
});
again();
