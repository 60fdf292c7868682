// What is drawn: the topology as an SVG of the page's own, and the curves of rates.

const SVG = 'http://www.w3.org/2000/svg';

/** An element with attributes and children; text is only ever text. */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A number in at most four characters and a unit. */
export function short(value) {
  if (value > 0 && value < 1) return '<1';
  for (const unit of ['', 'k', 'M', 'G', 'T']) {
    if (value < 999.5) {
      const digits = unit === '' ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
      return value.toFixed(digits) + unit;
    }
    value /= 1000;
  }
  return value.toFixed(0) + 'P';
}

/** One of good, warn, bad: how a port or peer stands. */
export function standing(state) {
  if (state === 'up') return 'good';
  return state === 'down' || state === 'no carrier' || state === 'never heard' ? 'warn' : 'bad';
}

/** Whether the spanning tree lets no frames pass. */
export const isBlocked = (port) => port.state === 'up' && (port.stp_state ?? 'forwarding') !== 'forwarding';

/** Two curves of rates over the last minute, in and out, on one scale. */
export function spark(rows) {
  const top = Math.max(1, ...rows.flatMap((row) => [row.rx, row.tx]));
  const line = (way) => rows.map((row, i) => `${(60 - rows.length + i).toFixed(0)},${(23 - 22 * row[way] / top).toFixed(1)}`).join(' ');
  return shape('svg', { class: 'spark', viewBox: '0 0 59 24', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    shape('polyline', { class: 'in', points: line('rx') }), shape('polyline', { class: 'out', points: line('tx') }));
}

const NODE = { width: 128, height: 46, gap: 12, row: 76 };

/**
 * Draws bridges as bars with their ports hung below them, and uplinks above. `open` is called with the name of a port that was chosen.
 * It is made anew when something comes or goes or the width changes; `update` only changes rates and states.
 */
export class Topology {
  constructor(place, open) {
    this.place = place;
    this.open = open;
    this.layout = '';
    this.nodes = new Map();
    this.traced = [];
    new ResizeObserver(() => { if (this.live) this.update(this.live, this.rates); }).observe(place);
  }

  update(live, rates) {
    [this.live, this.rates] = [live, rates];
    const width = Math.max(280, Math.floor(this.place.clientWidth));
    const layout = JSON.stringify([width, live.bridges.map((b) => [b.name, b.addresses, b.uplink]), live.uplinks.map((u) => u.name),
      live.ports.map((p) => [p.name, p.bridge, p.place]), live.tunnels.map((t) => [t.name, t.peers.length])]);
    if (layout !== this.layout) {
      this.layout = layout;
      this.build(width);
    }
    for (const port of live.ports) this.show(port, rates.get(port.name));
    for (const bridge of live.bridges) {
      const note = this.nodes.get('bridge ' + bridge.name);
      if (note) note.textContent = `${bridge.macs} MACs`;
    }
  }

  /** Marks the ports on the way of a frame. */
  trace(names) {
    this.traced = names;
    if (this.live) this.update(this.live, this.rates);
  }

  build(width) {
    const { live } = this;
    this.nodes.clear();
    const focused = document.activeElement?.dataset?.port;
    const wires = shape('g'), boxes = shape('g');
    const uplinks = live.ports.filter((port) => port.kind === 'uplink');
    const lanes = new Map(uplinks.map((port, i) => [port.name, width - 8 - 12 * i]));
    const bar = width - (uplinks.length ? 12 * uplinks.length + 14 : 0);
    let y = 2;
    uplinks.forEach((port, i) => {
      const x = Math.max(0, lanes.get(port.name) - NODE.width + 4 - 0 * i);
      this.node(boxes, port, x, y);
      port.top = y;
      y += NODE.height + 10;
    });
    if (uplinks.length) y += 4;
    const reach = new Map();
    for (const bridge of live.bridges) {
      const ports = live.ports.filter((port) => port.bridge === bridge.name);
      if (lanes.has(bridge.uplink)) {
        reach.set(bridge.uplink, y + 18);
        wires.append(shape('path', { class: 'wire', d: `M${bar} ${y + 18}H${lanes.get(bridge.uplink)}` }));
      }
      y = this.bridge(wires, boxes, bridge, ports, bar, y) + 22;
    }
    for (const port of uplinks) {
      if (reach.has(port.name)) {
        const x = lanes.get(port.name);
        wires.append(shape('path', { class: 'wire', d: `M${x} ${port.top + NODE.height}V${reach.get(port.name)}` }));
        wires.append(this.flow(port.name, x, port.top + NODE.height, reach.get(port.name)));
      }
    }
    const height = Math.max(60, y - 12);
    const title = `${live.bridges.length} bridges with ${live.ports.length} ports, tunnels and uplinks`;
    const svg = shape('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': title }, wires, boxes);
    this.place.replaceChildren(live.bridges.length || uplinks.length ? svg : element('p', { class: 'empty' }, 'There is no bridge yet: vsctl add-br br0'));
    if (focused) this.place.querySelector(`[data-port="${CSS.escape(focused)}"]`)?.focus();
  }

  bridge(wires, boxes, bridge, ports, width, y) {
    const text = shape('text', { class: 'small', x: width - 12, y: y + 23, 'text-anchor': 'end' });
    this.nodes.set('bridge ' + bridge.name, text);
    const label = width > 420 ? bridge.addresses.join('  ') : (bridge.addresses[0] ?? '');
    boxes.append(shape('g', { class: 'bridge' },
      shape('rect', { x: 0, y, width, height: 36, rx: 8 }),
      shape('text', { class: 'name', x: 12, y: y + 23 }, bridge.name),
      shape('text', { class: 'small', x: 24 + 9 * bridge.name.length, y: y + 23 }, label), text));
    const room = width - 18;
    const columns = Math.max(1, Math.floor((room + NODE.gap) / (NODE.width + NODE.gap)));
    const wide = Math.min(NODE.width + 60, (room - NODE.gap * (columns - 1)) / columns);
    let top = y + 36, trunk = '', end = top;
    for (let i = 0; i < ports.length; i += columns) {
      const row = ports.slice(i, i + columns);
      const first = i === 0;
      if (!first) {
        // The rows below the first hang on a bus of their own.
        const last = 18 + (row.length - 1) * (wide + NODE.gap) + wide / 2;
        trunk += `M6 ${top + 6}H${last}`;
        end = top + 6;
      }
      row.forEach((port, column) => {
        const x = 18 + column * (wide + NODE.gap), from = first ? top : top + 6, to = top + 26;
        const link = shape('path', { d: `M${x + wide / 2} ${from}V${to}` });
        const cut = shape('path', { class: 'cut', d: `M${x + wide / 2 - 8} ${(from + to) / 2}h16` });
        this.nodes.set('link ' + port.name, link);
        wires.append(link, cut, this.flow(port.name, x + wide / 2, from, to));
        this.node(boxes, port, x, to, wide);
      });
      top += NODE.row;
    }
    if (trunk) wires.append(shape('path', { class: 'wire', d: `M6 ${y + 36}V${end}${trunk}` }));
    return ports.length ? top : y + 36;
  }

  flow(name, x, from, to) {
    const flow = shape('path', { class: 'flow', d: `M${x} ${from}V${to}` });
    this.nodes.set('flow ' + name, flow);
    return flow;
  }

  node(boxes, port, x, y, width = NODE.width) {
    const most = Math.floor((width - 30) / 7.4);
    const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + '…' : text);
    const rate = shape('text', { class: 'small', x: x + 10, y: y + 37 });
    const dot = shape('circle', { cx: x + width - 12, cy: y + 14, r: 4.5 });
    const title = shape('title');
    const node = shape('g', { class: 'node', tabindex: 0, role: 'button', 'data-port': port.name,
      onclick: () => this.open(port.name),
      onkeydown: (event) => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); this.open(port.name); } } },
    title, shape('rect', { x, y, width, height: NODE.height, rx: 8 }), shape('text', { class: 'name', x: x + 10, y: y + 18 }, cut(port.name, most)), rate, dot);
    boxes.append(node);
    this.nodes.set(port.name, { node, rate, title, room: Math.floor((width - 16) / 6) });
  }

  show(port, rate) {
    const known = this.nodes.get(port.name);
    if (!known) return;
    const how = standing(port.state);
    known.node.setAttribute('class', `node ${how}${port.state === 'up' ? '' : ' off'}${isBlocked(port) ? ' blocked' : ''}${this.traced.includes(port.name) ? ' traced' : ''}`);
    const tunnel = this.live.tunnels.find((tunnel) => tunnel.name === port.name);
    const peers = tunnel ? `${tunnel.peers.filter((peer) => peer.state === 'up').length}/${tunnel.peers.length} peers` : null;
    const busy = rate && rate.rx + rate.tx > 0;
    const tree = isBlocked(port) ? `STP: ${port.stp_state}` : null;
    const idle = port.state === 'up' ? peers ?? port.place ?? port.kind : port.state;
    const text = tree ? tree : rate?.drops > 0 ? `${short(rate.drops)} drops/s` : busy ? `↑${short(rate.bits_rx)} ↓${short(rate.bits_tx)} bit/s` : idle;
    known.rate.textContent = text.length > known.room ? text.slice(0, known.room - 1) + '…' : text;
    known.rate.setAttribute('class', tree ? 'blocked' : rate?.drops > 0 ? 'dropping' : 'small');
    this.nodes.get('link ' + port.name)?.setAttribute('class', `link${tree ? ' blocked' : port.state === 'up' ? '' : ' off'}`);
    const label = `${port.name}, ${port.kind}${port.place ? ', ' + port.place : ''}: ${tree ?? port.state}`;
    known.title.textContent = label;
    known.node.setAttribute('aria-label', label);
    const flow = this.nodes.get('flow ' + port.name);
    if (flow) {
      flow.setAttribute('class', busy && !tree ? 'flow on' : 'flow');
      flow.setAttribute('stroke-width', busy && !tree ? Math.min(8, 1.5 + Math.log10(1 + (rate.bits_rx + rate.bits_tx) / 1000)).toFixed(1) : 0);
    }
  }
}
