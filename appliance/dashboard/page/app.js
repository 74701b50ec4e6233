// The dashboard: polls /v1/network and /v1/status, hears of final blocks from /v1/finality, and follows one transaction.
// No dependencies. What stands on the page is changed in place, so that focus, selection and scrolling stay.
"use strict";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const pollMs = 1000;
const followMs = 250;
const followTries = 240;
const timeoutMs = 5000;
const listenAgainMs = 3000;
const maxRows = 12;

function el(tag, text, attributes = {}) {
  const e = document.createElement(tag);
  if (text !== undefined && text !== null) e.textContent = text;
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
}

function set(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// get reads JSON. A refusal of the node's is an error with a code; one without has not reached the node, or took too long.
async function get(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(timeoutMs) });
  const value = await answer.json();
  if (answer.ok) return value;
  throw Object.assign(new Error(`${value.error.message} ${value.error.remedy}`), { code: value.error.code });
}

const ms = (v) => (v > 0 ? number.format(Math.round(v)) : "–");
const rate = (v) => (v >= 100 ? number.format(Math.round(v)) : number.format(Math.round(v * 10) / 10));
const count = (n, what) => `${number.format(n)} ${what}${n === 1 ? "" : "s"}`;

function duration(s) {
  if (s < 120) return count(Math.round(s), "second");
  if (s < 7200) return count(Math.round(s / 60), "minute");
  return s < 172800 ? count(Math.round(s / 3600), "hour") : count(Math.round(s / 86400), "day");
}

// say shows how the node does, in words and with a mark; it is read out when it changes.
function say(state, mark, text) {
  const h = $("health");
  if (h.dataset.text === text) return;
  h.dataset.text = text;
  h.dataset.state = state;
  h.replaceChildren(el("span", mark, { "aria-hidden": "true" }), document.createTextNode(" " + text));
}

// standing says in words and with a mark how a validator does; colour only repeats it.
function standing(v, stale) {
  if (stale) return ["warn", "▲ no news"];
  if (!v.self && !v.connected) return ["bad", "✕ not connected"];
  if (v.last_vote_ms < 0) return ["warn", "▲ no vote seen"];
  if (v.lag > 4 || v.last_vote_ms > 10000) return ["warn", v.self ? "▲ this node, behind" : "▲ behind"];
  return ["good", v.self ? "● this node" : "● voting"];
}

const isStale = (s) => s.stale_ms > 10000;

// fill makes a table's body say lines: of cells that are text, or text and state.
function fill(body, lines) {
  while (body.rows.length > lines.length) body.deleteRow(-1);
  lines.forEach((cells, i) => {
    const row = body.rows[i] ?? body.insertRow();
    cells.forEach((c, k) => {
      const cell = row.cells[k] ?? row.appendChild(k === 0 ? el("th", null, { scope: "row" }) : el("td"));
      const [text, state] = Array.isArray(c) ? c : [c];
      set(cell, text);
      if (state) cell.dataset.state = state;
    });
  });
}

// Cards, by shard.
const cards = new Map();

function card(shard) {
  const c = { shard, root: el("article", null, { class: "card", "aria-labelledby": `shard-${shard}` }), line: el("p", null, { class: "line" }), body: el("tbody") };
  const table = el("table");
  const head = el("tr");
  for (const t of ["validator", "power", "voted at", "behind", "state"]) head.append(el("th", t, { scope: "col" }));
  const thead = el("thead");
  thead.append(head);
  table.append(el("caption", `Validators of shard ${shard}`, { class: "hidden" }), thead, c.body);
  const wrap = el("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": `Validators of shard ${shard}` });
  wrap.append(table);
  c.root.append(el("h3", `Shard ${shard}`, { id: `shard-${shard}` }), c.line, wrap);
  return c;
}

function showShard(s) {
  let c = cards.get(s.shard);
  if (!c) {
    c = card(s.shard);
    const next = [...cards.values()].filter((o) => o.shard > s.shard).sort((a, b) => a.shard - b.shard)[0];
    cards.set(s.shard, c);
    $("shards").insertBefore(c.root, next ? next.root : null);
  }
  const stale = s.stale_ms > 5000 ? ` · as of ${duration(s.stale_ms / 1000)} ago` : "";
  set(c.line, `height ${number.format(s.height)} · ${rate(s.tps)} tx/s · final in ${ms(s.finality_ms.p50)} ms, 99 of 100 in ${ms(s.finality_ms.p99)} ms${stale}`);
  fill(c.body, (s.validators ?? []).map((v) => {
    const [state, word] = standing(v, isStale(s));
    return [v.name || `#${v.index}`, number.format(v.power), v.last_height ? number.format(v.last_height) : "–", number.format(v.lag), [word, state]];
  }));
}

function showNetwork(n) {
  const shards = n.shards ?? [];
  shards.forEach(showShard);
  set($("tps"), rate(shards.reduce((sum, s) => sum + s.tps, 0)));
  const worst = (key) => Math.max(0, ...shards.map((s) => s.finality_ms[key]));
  set($("p50"), ms(worst("p50")));
  set($("p99"), ms(worst("p99")));
  const good = shards.flatMap((s) => (s.validators ?? []).map((v) => standing(v, isStale(s))[0] === "good"));
  set($("voting"), `${number.format(good.filter(Boolean).length)} of ${number.format(good.length)}`);
}

function showHistogram(buckets) {
  const body = $("histogram").tBodies[0];
  const most = Math.max(1, ...buckets.map((b) => b.count));
  const time = (i) => (buckets[i].up_to_ms >= 1000 ? `${buckets[i].up_to_ms / 1000} s` : `${buckets[i].up_to_ms} ms`);
  const label = (b, i) => {
    if (i === 0) return `up to ${time(0)}`;
    return i === buckets.length - 1 ? `over ${time(i - 1)}` : `${time(i - 1)} – ${time(i)}`;
  };
  fill(body, buckets.map((b, i) => [label(b, i), number.format(b.count)]));
  buckets.forEach((b, i) => {
    const row = body.rows[i];
    if (row.cells.length < 3) row.appendChild(el("td")).append(el("meter", null, { min: 0, "aria-hidden": "true" })); // the number is beside it
    const meter = row.cells[2].firstChild;
    meter.max = most;
    meter.value = b.count;
  });
}

function showNode(s) {
  set($("chain"), `${s.chain} · genesis ${s.genesis.slice(0, 8)} · ${count(s.shards, "shard")}`);
  const pairs = [
    ["role", s.validator_index >= 0 ? `validator ${s.validator_index} of shard ${s.shard}` : `follower of shard ${s.shard}`],
    ["epoch", s.epoch.left === undefined ? number.format(s.epoch.number) : `${number.format(s.epoch.number)}, ends in ${count(s.epoch.left, "block")}`],
    ["version", `${s.version} (${s.commit})`],
    ["final height", number.format(s.final_height)],
    ["view", number.format(s.view)],
    ["state root", `${s.state_root} after block ${number.format(s.state_height)}`],
    ["accounts", number.format(s.accounts)],
    ["waiting in the pool", `${number.format(s.pool.txs)} of ${number.format(s.pool.limit)}` +
      (s.pool.batched ? `, and ${number.format(s.pool.batched)} in batches` : "")],
    ["peers connected", number.format(s.peers_connected)],
    ["memory", `${number.format(Math.round(s.memory.rss_mib))} MiB`],
    ["data on disk", `${number.format(Math.round(s.disk_mib))} MiB`],
    ["running for", duration(s.uptime_s)],
  ];
  const list = $("node");
  if (list.children.length === 0) list.append(...pairs.flatMap(([k]) => [el("dt", k), el("dd")]));
  pairs.forEach(([, v], i) => set(list.children[2 * i + 1], v));
  showHistogram(s.finality_histogram ?? []);
}

async function poll() {
  try {
    const status = await get("v1/status");
    if (!status.sync) { // else there is no more to be told yet
      showNetwork(await get("v1/network"));
      showNode(status);
      showAges();
    }
    if (status.sync) say("warn", "▲", `getting the state from other nodes: ${Math.floor(100 * status.sync.share)} %`);
    else if (status.syncing) say("warn", "▲", "catching up");
    else if (status.stalled) say("bad", "✕", "no new final block");
    else say("good", "●", "finalising");
  } catch {
    say("bad", "✕", "this node does not answer");
  }
  setTimeout(poll, pollMs);
}

// The latest final blocks, newest first: {height, row, time, txs}.
const blocks = [];

function addBlock(height) {
  if (blocks.length > 0 && height <= blocks[0].height) return;
  const b = { height, row: $("blocks").tBodies[0].insertRow(0), time: 0, txs: 0 };
  b.row.className = "fresh";
  b.row.append(el("th", number.format(height), { scope: "row" }), el("td"), el("td"), el("td"), el("td"));
  blocks.unshift(b);
  for (const old of blocks.splice(maxRows)) old.row.remove();
  describe(b);
}

async function describe(b) {
  try {
    const got = await get(`v1/blocks/${b.height}`);
    b.time = got.time_ms;
    b.txs = got.transactions;
    ["", number.format(got.view), number.format(got.transactions), "", got.hash.slice(0, 16)].forEach((text, k) => {
      if (text) set(b.row.cells[k], text);
    });
    showAges();
  } catch {
    // the node may have dropped it already; the row stays without these columns
  }
}

function showAges() {
  for (const b of blocks) {
    const s = Math.max(0, Date.now() - b.time) / 1000;
    if (b.time) set(b.row.cells[3], s < 120 ? `${s.toFixed(1)} s` : duration(s));
  }
}

function listen() {
  const source = new EventSource("v1/finality");
  const again = () => {
    source.close();
    setTimeout(listen, listenAgainMs);
  };
  source.addEventListener("hello", (event) => {
    const { height } = JSON.parse(event.data);
    if (blocks.length > 0 && height < blocks[0].height) { // another network has taken this one's place
      for (const b of blocks.splice(0)) b.row.remove();
    }
    for (let h = Math.max(1, height - maxRows + 1); h <= height; h++) addBlock(h);
  });
  source.addEventListener("final", (event) => addBlock(JSON.parse(event.data).height));
  source.addEventListener("end", again);
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) again(); // refused; otherwise the browser connects again by itself
  });
}

// Follow one transaction from submission to its proof.
let following = 0;

async function follow(id) {
  const mine = ++following;
  const seen = new Set();
  const start = performance.now();
  const step = (key, text, link) => {
    if (seen.has(key) || mine !== following) return;
    seen.add(key);
    const item = el("li", `${text} (${number.format(Math.round(performance.now() - start))} ms after you asked)`);
    if (link) item.append(" ", link);
    $("steps").append(item);
  };
  $("steps").replaceChildren();
  $("txid").value = id;
  for (let tries = 0; mine === following && tries < followTries; tries++) {
    try {
      if (await look(id, step)) return;
    } catch (err) {
      step("error", err.code ? `This node says: ${err.message}` : "This node does not answer; asking again");
      if (err.code) return;
    }
    await new Promise((done) => setTimeout(done, followMs));
  }
  step("end", "Nothing new for a minute, so this page has stopped asking");
}

// look asks once and tells what is new. It reports whether nothing more can come.
async function look(id, step) {
  const t = await get(`v1/transactions/${id}`);
  switch (t.state) {
    case "unknown":
      step("unknown", "Not known to this node yet; waiting. A node knows the transactions of its own shard");
      return false;
    case "pooled":
      step("pooled", "Accepted: it waits for a block");
      return false;
    case "included":
      step("included", `In block ${number.format(t.height)}, which is being voted on`);
      return false;
  }
  const block = `Final in block ${number.format(t.height)} of shard ${t.shard}`;
  step("final", t.success ? `${block}: it cannot be undone` : `${block}, without effect: nothing was moved or paid`);
  const settled = t.state !== "final" || !t.cross_shard;
  if (!settled) step("way", "On its way to the receiver's shard");
  if (t.state === "credited") step("credited", `Credited in block ${number.format(t.credit.height)} of shard ${t.credit.shard}`);
  if (t.state === "returned") step("returned", "The receiver does not exist: the money goes back");
  if (settled) await showProof(id, step);
  return settled;
}

async function showProof(id, step) {
  const path = `v1/transactions/${id}/proof`;
  const p = (await get(path)).statement;
  const what = p.credit ? `debit and credit, in blocks ${p.where.block.slice(0, 8)} and ${p.credit.where.block.slice(0, 8)}` : `block ${p.where.block.slice(0, 16)}`;
  step("proof", `Proven: ${what}. “tutti wallet receipt ${id.slice(0, 8)}…” checks it offline`, el("a", "Save the proof", { href: path, download: `proof-${id.slice(0, 16)}.json` }));
}

function hint(text) {
  following++;
  $("steps").replaceChildren(el("li", text));
}

$("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = $("txid").value.trim().toLowerCase();
  if (/^[0-9a-f]{64}$/.test(id)) follow(id);
  else hint("A transaction id has 64 hexadecimal digits.");
});
$("newest").addEventListener("click", async () => {
  const b = blocks.find((x) => x.txs > 0);
  if (!b) {
    hint("None of the latest blocks of this shard has a transaction.");
    return;
  }
  try {
    follow((await get(`v1/blocks/${b.height}?ids=1`)).ids.at(-1));
  } catch {
    hint("This node does not say what is in its newest block; try again.");
  }
});

poll();
listen();
