// The page: what comes by itself (counters, events), what is asked for while it is looked at (tables), and what needs the token.

import { Topology, element, isBlocked, short, spark, standing } from './draw.js';

const $ = (id) => document.getElementById(id);
const REMEMBERED = 60, SHOWN = 200, EVENTS = 200, FLOWS = 16;

let live = null;
/** What passed each port in a second, by name, and the last minute of it. */
const rates = new Map(), history = new Map();
const topology = new Topology($('map'), details);

// Counters ------------------------------------------------------------------------------------------------------------------------

function follow() {
  const counters = new EventSource('api/live');
  counters.onmessage = (message) => {
    connected(true);
    take(JSON.parse(message.data));
  };
  counters.onerror = () => {
    connected(false);
    // A browser gives up for good after an answer that is no stream, as one that there are too many of.
    if (counters.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
  };
}

function connected(is) {
  $('connection').textContent = is ? '● live' : 'No answer from vswitchd: trying again…';
  $('connection').className = is ? '' : 'lost';
}

function take(next) {
  next.ports.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  const seconds = live ? next.counted_seconds - live.counted_seconds : 0;
  if (live && next.uptime_seconds < live.uptime_seconds) {
    rates.clear();
    history.clear();
  } else if (seconds > 0) {
    const before = new Map(live.ports.map((port) => [port.name, port]));
    for (const port of next.ports) count(port, before.get(port.name), seconds);
    for (const name of rates.keys()) {
      if (!next.ports.some((port) => port.name === name)) { rates.delete(name); history.delete(name); }
    }
  }
  live = next;
  draw();
}

const sum = (drops) => Object.values(drops).reduce((all, count) => all + count, 0);
const drops = (port) => sum(port.rx_drops) + sum(port.tx_drops);

function count(port, before, seconds) {
  if (!before || before.rx_frames > port.rx_frames || before.tx_frames > port.tx_frames) return rates.delete(port.name);
  const each = (key) => Math.max(0, port[key] - before[key]) / seconds;
  const rate = { frames_rx: each('rx_frames'), frames_tx: each('tx_frames'), bytes_rx: each('rx_bytes'), bytes_tx: each('tx_bytes'),
    drops: Math.max(0, drops(port) - drops(before)) / seconds, reasons: new Map() };
  [rate.bits_rx, rate.bits_tx, rate.rx, rate.tx] = [rate.bytes_rx * 8, rate.bytes_tx * 8, rate.frames_rx, rate.frames_tx];
  for (const [way, key] of [['in', 'rx_drops'], ['out', 'tx_drops']]) {
    for (const [reason, all] of Object.entries(port[key])) {
      rate.reasons.set(way + reason, Math.max(0, all - (before[key][reason] ?? 0)) / seconds);
    }
  }
  rates.set(port.name, rate);
  const past = history.get(port.name) ?? [];
  past.push({ rx: rate.bits_rx, tx: rate.bits_tx });
  history.set(port.name, past.slice(-REMEMBERED));
}

function draw() {
  if (document.hidden || !live) return;
  const up = live.ports.filter((port) => port.state === 'up').length;
  const parts = [`${live.version}`, `up ${time(live.uptime_seconds)}`, `${live.workers} worker${live.workers === 1 ? '' : 's'}`, `${up} of ${live.ports.length} ports up`];
  if (live.captures) parts.push(`${live.captures} capture${live.captures === 1 ? '' : 's'} running`);
  $('summary').textContent = parts.join(' · ');
  topology.update(live, rates);
  drawPorts();
  drawDrops();
  drawFlows();
  drawMeters();
  drawChoices();
}

function time(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`;
}

/** Rows of a table, without taking the focus from what is in them. */
function rows(body, nodes, nothing, columns) {
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  body.replaceChildren(...(nodes.length ? nodes : [element('tr', {}, element('td', { colspan: columns, class: 'empty' }, nothing))]));
  if (focused) body.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function drawPorts() {
  const unit = $('unit').value, sort = $('sort').value;
  const name = { bits: 'bit/s', bytes: 'B/s', frames: '/s' }[unit];
  const total = (port) => { const rate = rates.get(port.name); return rate ? rate[unit + '_rx'] + rate[unit + '_tx'] : 0; };
  [$('head-in').textContent, $('head-out').textContent] = [`In, ${name}`, `Out, ${name}`];
  const ports = [...live.ports];
  if (sort === 'rate') ports.sort((a, b) => total(b) - total(a));
  if (sort === 'drops') ports.sort((a, b) => (rates.get(b.name)?.drops ?? 0) - (rates.get(a.name)?.drops ?? 0) || drops(b) - drops(a));
  const row = (port) => {
    const rate = rates.get(port.name);
    const number = (value) => element('td', { class: 'n' }, value === undefined ? '–' : short(value));
    const place = [port.bridge, port.kind, port.place].filter(Boolean).join(' · ');
    return element('tr', {},
      element('td', {}, element('button', { 'data-key': port.name, onclick: () => details(port.name) }, port.name), element('small', {}, place)),
      element('td', {}, element('span', { class: 'state ' + (isBlocked(port) ? 'warn' : standing(port.state)), title: isBlocked(port) ? `The spanning tree lets no frames pass: ${port.stp_state}` : port.state },
        element('span', {}, isBlocked(port) ? port.stp_state : port.state.length < 20 ? port.state : 'unusable'))),
      number(rate?.[unit + '_rx']), number(rate?.[unit + '_tx']),
      element('td', { class: 'wide' }, spark(history.get(port.name) ?? [])),
      element('td', { class: 'n' + (rate?.drops > 0 ? ' bad' : '') }, rate ? short(rate.drops) : '–'),
      element('td', { class: 'n wide' }, short(drops(port))));
  };
  rows($('port-rows'), ports.map(row), 'There is no port yet.', 7);
}

function drawDrops() {
  const all = live.ports.flatMap((port) => [['in', port.rx_drops], ['out', port.tx_drops]].flatMap(([way, reasons]) =>
    Object.entries(reasons).map(([reason, total]) => ({ port: port.name, way, reason, total, rate: rates.get(port.name)?.reasons.get(way + reason) ?? 0 }))));
  all.sort((a, b) => b.rate - a.rate || b.total - a.total);
  const row = ({ port, way, reason, total, rate }) => element('tr', {}, element('td', {}, reason.replaceAll('_', '-')), element('td', {}, port),
    element('td', {}, way), element('td', { class: 'n' + (rate > 0 ? ' bad' : '') }, short(rate)), element('td', { class: 'n' }, short(total)));
  rows($('drop-rows'), all.slice(0, SHOWN).map(row), 'Nothing was dropped.', 5);
}

function drawFlows() {
  const unit = $('unit').value;
  const rate = (flow) => (unit === 'frames' ? flow.frames_per_second : flow.bytes_per_second * (unit === 'bits' ? 8 : 1));
  const end = (address, port, mac) => (!address ? mac : !port ? address : address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`);
  const way = (flow) => (flow.drop_reason ? `${flow.in}: ${flow.drop_reason.replaceAll('_', '-')}` : flow.out ? `${flow.in} → ${flow.out}` : `${flow.in}: ${flow.verdict.replaceAll('_', '-')}`);
  $('head-flow').textContent = { bits: 'bit/s', bytes: 'B/s', frames: 'frames/s' }[unit];
  const row = (flow) => element('tr', { title: way(flow) }, element('td', {}, flow.protocol), element('td', { class: 'mono' }, end(flow.source, flow.source_port, flow.source_mac)),
    element('td', { class: 'mono' }, end(flow.destination, flow.destination_port, flow.destination_mac)),
    element('td', { class: flow.drop_reason ? 'bad' : null }, way(flow)), element('td', { class: 'n' }, short(rate(flow))));
  rows($('flow-rows'), [...live.flows].sort((a, b) => rate(b) - rate(a)).slice(0, FLOWS).map(row), 'Nothing moves.', 5);
}

function drawMeters() {
  const meters = [];
  for (const tunnel of live.tunnels) {
    const heard = tunnel.peers.filter((peer) => peer.state === 'up').length;
    meters.push([`${tunnel.name}: peers heard`, heard, tunnel.peers.length, heard < tunnel.peers.length ? 'full' : '']);
  }
  for (const uplink of live.uplinks) meters.push([`${uplink.name}: sessions`, uplink.sessions, uplink.max_sessions]);
  for (const bridge of live.bridges) {
    meters.push([`${bridge.name}: MAC addresses`, bridge.macs, bridge.max_macs]);
    for (const pool of bridge.pools) meters.push([`${bridge.name}: DHCP ${pool.subnet}`, pool.used, pool.size]);
  }
  const meter = ([name, used, size, how]) => {
    const share = size ? used / size : 0;
    const bar = element('i');
    bar.style.width = `${used ? Math.max(1, Math.min(100, share * 100)) : 0}%`;
    how ??= share >= .9 ? 'full' : share >= .7 ? 'some' : '';
    return element('div', { class: `meter ${how}`, role: 'meter', 'aria-valuemin': 0, 'aria-valuemax': size, 'aria-valuenow': used, 'aria-label': name },
      element('p', {}, element('span', {}, name), element('span', { class: how === 'full' ? 'bad' : null }, `${used} of ${size}`)), element('div', {}, bar));
  };
  $('meters').replaceChildren(...(meters.length ? meters.map(meter) : [element('p', { class: 'empty' }, 'There is no table yet.')]));
}

function drawChoices() {
  const names = live.ports.map((port) => port.name);
  for (const [select, first] of [[$('capture-form').port, 'all'], [$('trace-form').port, null]]) {
    const all = first ? [''].concat(names) : names;
    if ([...select.options].map((option) => option.value).join() === all.join()) continue;
    const chosen = select.value;
    select.replaceChildren(...all.map((name) => element('option', { value: name }, name || first)));
    if (all.includes(chosen)) select.value = chosen;
  }
}

// Events --------------------------------------------------------------------------------------------------------------------------

const events = [];
let waiting = false;

function followEvents() {
  const stream = new EventSource('api/events');
  stream.onmessage = (message) => {
    const event = JSON.parse(message.data);
    // After a restart of vswitchd numbers begin anew.
    if (events.length && event.number <= events[0].number) {
      if (event.time <= events[0].time) return;
      events.length = 0;
    }
    events.unshift(event);
    events.length = Math.min(events.length, 4096);
    if (!waiting) {
      waiting = true;
      setTimeout(() => { waiting = false; drawEvents(); }, 100);
    }
  };
  stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) setTimeout(followEvents, 3000); };
}

function drawEvents() {
  const kind = $('kind').value;
  const shown = events.filter((event) => event.kind.startsWith(kind)).slice(0, EVENTS);
  const tone = { loop_suspected: 'bad', address_conflict: 'bad', table_full: 'bad', peer: 'warn' };
  const row = (event) => element('li', {},
    element('time', { datetime: event.time, title: event.time }, new Date(event.time).toLocaleTimeString([], { hour12: false })),
    element('span', { class: `tag ${tone[event.kind] ?? ''}` }, event.kind.replaceAll('_', ' ')),
    event.summary.includes(event.port ?? event.bridge) ? null : element('b', {}, `${event.port ?? event.bridge ?? ''} `), event.summary, event.by ? element('small', { class: 'dim' }, ` by ${event.by}`) : null);
  $('event-rows').replaceChildren(...(shown.length ? shown.map(row) : [element('li', { class: 'empty' }, 'Nothing yet.')]));
}

// Tables, asked for while they are open -------------------------------------------------------------------------------------------

const bytes = (count) => (count === null || count === undefined ? '–' : short(count) + 'B');
const TABLES = {
  fdb: { nothing: 'No MAC address is known.', columns: [['MAC', (r) => r.mac, 'mono'], ['Port', (r) => r.port + (r.remote ? ` → ${r.remote}` : '')], ['Bridge', (r) => r.bridge],
    ['VLAN', (r) => r.vlan, 'n'], ['Age', (r) => (r.static ? 'static' : r.held ? 'held' : `${r.age_seconds} s`), 'n']] },
  sessions: { nothing: 'There is no session.', columns: [['', (r) => r.protocol], ['Station', (r) => (r.container ? `${r.container} ` : '') + r.inside, 'mono'], ['', (r) => (r.direction === 'out' ? '→' : '←')],
    ['Remote', (r) => r.remote, 'mono'], ['State', (r) => r.state], ['Out', (r) => bytes(r.out_bytes), 'n'], ['In', (r) => bytes(r.in_bytes), 'n'], ['Uplink', (r) => r.uplink]] },
  'last-drops': { nothing: 'The recorder has no frame that was dropped.', columns: [['When', (r) => new Date(r.time).toLocaleTimeString([], { hour12: false }), 'n'], ['Reason', (r) => r.reason], ['Port', (r) => r.port],
    ['From', (r) => (r.came_in === r.port ? '' : r.came_in ?? 'the switch')], ['VLAN', (r) => r.vlan ?? '', 'n'], ['Frame', (r) => r.frame, 'mono']] },
  leases: { nothing: 'No address was given out.', columns: [['Address', (r) => r.address, 'mono'], ['MAC', (r) => r.mac, 'mono'], ['Name', (r) => r.container ?? r.name], ['Bridge', (r) => r.bridge],
    ['State', (r) => r.state], ['Ends in', (r) => time(r.seconds_left), 'n']] },
};
const tables = {};

async function ask(path) {
  const answer = await fetch('api/' + path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

async function refresh(name) {
  if (document.hidden || !$(name).open) return;
  try {
    tables[name] = await ask(name);
    drawTable(name);
  } catch (error) {
    $(name).lastElementChild.replaceChildren(element('p', { class: 'empty' }, error.message));
  }
}

function drawTable(name) {
  const { columns, nothing } = TABLES[name], wanted = $('find').value.trim().toLowerCase();
  const all = tables[name] ?? [], found = all.filter((row) => !wanted || columns.some(([, cell]) => String(cell(row)).toLowerCase().includes(wanted)));
  $(name).firstElementChild.textContent = `${{ fdb: 'MAC addresses', sessions: 'Sessions', leases: 'Leases', 'last-drops': 'Last drops' }[name]} (${found.length}${wanted ? ' of ' + all.length : ''})`;
  const head = element('tr', {}, ...columns.map(([title, , kind]) => element('th', { scope: 'col', class: kind === 'n' ? 'n' : null }, title)));
  const row = (row) => element('tr', {}, ...columns.map(([, cell, kind]) => element('td', { class: kind ?? null }, String(cell(row)))));
  const place = $(name).lastElementChild, top = place.scrollTop;
  const more = found.length > SHOWN ? element('p', { class: 'empty' }, `and ${found.length - SHOWN} more: find what you look for above`) : null;
  place.replaceChildren(...[found.length ? element('table', {}, element('thead', {}, head), element('tbody', {}, ...found.slice(0, SHOWN).map(row)))
    : element('p', { class: 'empty' }, wanted ? 'Nothing is called so.' : nothing), more].filter(Boolean));
  place.scrollTop = top;
}

// One port ------------------------------------------------------------------------------------------------------------------------

async function details(name) {
  const port = live.ports.find((port) => port.name === name);
  if (!port) return;
  $('details-title').textContent = name;
  const body = $('details-body');
  const facts = [['State', port.state], ['Spanning tree', port.stp_state], ['Kind', port.kind], ['Bridge', port.bridge], ['Where', port.place],
    ['In', `${port.rx_frames} frames, ${bytes(port.rx_bytes)}`], ['Out', `${port.tx_frames} frames, ${bytes(port.tx_bytes)}`]];
  for (const [way, reasons] of [['in', port.rx_drops], ['out', port.tx_drops]]) {
    for (const [reason, count] of Object.entries(reasons)) facts.push([`Dropped ${way}`, `${count} ${reason.replaceAll('_', '-')}`]);
  }
  for (const peer of live.tunnels.find((tunnel) => tunnel.name === name)?.peers ?? []) facts.push(['Peer', `${peer.address}: ${peer.state}`]);
  const list = element('dl');
  const show = () => list.replaceChildren(...facts.filter(([, value]) => value).flatMap(([what, value]) => [element('dt', {}, what), element('dd', {}, value)]));
  show();
  const capture = element('button', { onclick: () => { $('details').close(); $('capture-form').port.value = name; $('capture').scrollIntoView(); $('capture-form').filter.focus(); } }, 'Capture it…');
  const trace = element('button', { onclick: () => { $('details').close(); $('trace-form').port.value = name; $('trace').scrollIntoView(); $('trace-form').frame.focus(); } }, 'Trace from it…');
  body.replaceChildren(list, element('p', { class: 'bar' }, trace, capture));
  $('details').showModal();
  try {
    const [info, macs] = await Promise.all([ask('show'), ask('fdb')]);
    const row = info.ports.find((port) => port.name === name) ?? info.uplinks.find((uplink) => uplink.name === name) ?? {};
    for (const [what, value] of [['Device', row.ifname ?? row.device], ['MAC', row.mac], ['Addresses', row.addresses?.join(', ')], ['VLAN', row.vlan], ['Trunk', row.trunk?.join(', ')],
      ['Guard', row.guard ? 'on' : null], ['Container', row.container]]) if (value) facts.push([what, String(value)]);
    const here = macs.filter((mac) => mac.port === name).map((mac) => mac.mac + (mac.vlan === 1 ? '' : ` in VLAN ${mac.vlan}`));
    if (here.length) facts.push(['Stations', here.slice(0, 20).join(', ') + (here.length > 20 ? ` and ${here.length - 20} more` : '')]);
    show();
  } catch (error) {
    body.append(element('p', { class: 'bad' }, error.message));
  }
}

// What needs the token ------------------------------------------------------------------------------------------------------------

/** What stands beside the topology; the browser's policy lets it run nothing. Nothing moves while it says the same. */
async function guide() {
  if (document.hidden && guide.shown !== undefined) return;
  const answer = await fetch('api/guide').catch(() => null);
  if (!answer) return;
  const text = answer.status === 200 ? await answer.text() : '';
  $('guide').hidden = !text;
  if (text === guide.shown) return;
  guide.shown = text;
  $('guide').innerHTML = text;
}

function askToken() {
  const form = $('token-form');
  form.token.value = '';
  $('token').showModal();
  return new Promise((done) => {
    $('token').onclose = () => {
      const given = $('token').returnValue === 'keep' ? form.token.value.trim() : '';
      if (given) sessionStorage.setItem('token', given);
      done(Boolean(given));
    };
  });
}

/** Asks for more than a look. A token that is missing or wrong is asked for. */
export async function post(path, body, signal) {
  while (sessionStorage.getItem('token') || await askToken()) {
    const headers = { authorization: `Bearer ${sessionStorage.getItem('token')}`, 'content-type': 'application/json' };
    const answer = await fetch('api/' + path, { method: 'POST', headers, body: JSON.stringify(body), signal });
    if (answer.ok) return answer;
    if (answer.status !== 401) throw new Error((await answer.json()).error);
    sessionStorage.removeItem('token');
  }
  return null;
}

/** As what a super-frame travels. */
const cut = (frame) => `${frame.segments} ${frame.kind === 'udp' ? 'UDP datagrams' : 'TCP segments'} of ${frame.segment_bytes} bytes`;

/** What `vsctl trace` asks: a frame in words or hex digits, or where one would go. */
async function trace(form) {
  const says = $('trace-says'), way = $('trace-way'), text = form.frame.value.trim();
  const frame = text.includes(' ') || /^[0-9a-f]{28,}$/i.test(text) ? { text } : { to: text };
  const answer = await fetch('api/trace', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ port: form.port.value, frame }) });
  const found = await answer.json();
  says.textContent = answer.ok ? '' : found.error;
  says.className = answer.ok ? 'says' : 'says bad';
  topology.trace(answer.ok ? [found.port, ...found.exits.filter((exit) => !exit.own).map((exit) => exit.port)] : []);
  if (!answer.ok) return way.replaceChildren();
  const bad = found.verdict === 'dropped' || found.exits.some((exit) => exit.drop_reason && !exit.own);
  const end = (port, text, notes, bad) => element('li', { class: bad ? 'end bad' : 'end' }, element('b', {}, port), element('span', { class: 'mono' }, text), ...notes.map((note) => element('small', {}, note)));
  const steps = found.steps.map((step) => element('li', { class: step.own ? 'own' : null }, step.text));
  const exits = found.exits.map((exit) => end(`→ ${exit.port}`, exit.frame.summary, [exit.own ? 'made by the switch' : null, exit.frames > 1 ? `the first of ${exit.frames} frames` : null, exit.frame.super_frame ? `whole: ${cut(exit.frame.super_frame)}` : null, exit.vni === null ? null : `inside VXLAN ${exit.vni}, to ${exit.remote ?? 'all its hosts'}`,
    ...exit.changes, exit.drop_reason ? `dropped there: ${exit.drop_reason.replaceAll('_', '-')}` : null].filter(Boolean), exit.drop_reason));
  const ethernet = found.frame.ethernet;
  const first = end(found.port, found.frame.summary, ethernet ? [`${ethernet.source} > ${ethernet.destination}, ${found.frame.length} bytes`, found.frame.super_frame ? `a super-frame: ${cut(found.frame.super_frame)}` : null].filter(Boolean) : [], false);
  way.replaceChildren(element('ol', { class: 'way' }, first, ...steps, ...exits),
    element('div', { class: bad ? 'verdict bad' : 'verdict' }, element('p', {}, element('b', {}, found.conclusion)), found.advice ? element('p', {}, found.advice) : null));
}

async function capture(form) {
  const port = form.port.value, says = $('capture-says'), stop = new AbortController();
  const tell = (text, how = '') => { says.textContent = text; says.className = `says ${how}`; };
  const chunks = [];
  let size = 0;
  $('capture-start').disabled = true;
  try {
    const wanted = { ports: port ? [port] : [], filter: form.filter.value, seconds: Number(form.seconds.value), count: Number(form.count.value) };
    const answer = await post('capture', wanted, stop.signal);
    if (!answer) return tell('Without the token nothing is captured.');
    $('capture-stop').hidden = false;
    $('capture-stop').onclick = () => stop.abort();
    tell(`Capturing for ${wanted.seconds} s…`);
    for await (const chunk of pieces(answer.body)) {
      chunks.push(chunk);
      size += chunk.length;
      tell(`Capturing… ${short(size)}B so far`);
    }
    save(chunks, size, port, tell);
  } catch (error) {
    if (error.name === 'AbortError') save(chunks, size, port, tell);
    else tell(error.message, 'bad');
  } finally {
    $('capture-start').disabled = false;
    $('capture-stop').hidden = true;
  }
}

async function* pieces(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

function save(chunks, size, port, tell) {
  const link = element('a', { href: URL.createObjectURL(new Blob(chunks, { type: 'application/x-pcapng' })), download: `${port || 'vswitch'}.pcapng` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  tell(`${link.download} has ${short(size)}B.`);
}

// The rest ------------------------------------------------------------------------------------------------------------------------

for (const id of ['sort', 'unit']) $(id).addEventListener('change', draw);
$('kind').addEventListener('change', drawEvents);
$('find').addEventListener('input', () => { for (const name of Object.keys(tables)) drawTable(name); });
for (const name of Object.keys(TABLES)) $(name).addEventListener('toggle', () => refresh(name));
setInterval(() => { for (const name of Object.keys(TABLES)) refresh(name); }, 3000);
guide();
setInterval(guide, 3000);
document.addEventListener('visibilitychange', draw);
$('trace-form').addEventListener('submit', (event) => {
  event.preventDefault();
  trace(event.target).catch((error) => { $('trace-says').textContent = error.message; });
});
$('capture-form').addEventListener('submit', (event) => { event.preventDefault(); capture(event.target); });
$('token-button').addEventListener('click', askToken);
drawEvents();
follow();
followEvents();
