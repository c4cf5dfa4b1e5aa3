// Elements out of plain values. Text is always text: nothing here parses markup, so nothing said in a conversation can
// become any.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** An element: `el('a', {href}, 'text', child)`; attributes that begin with `on` are listeners. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for drawings. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** A table whose columns are `[heading, class]`; rows are lists of cells, each a node, a text or a list of them. */
export function table(caption, columns, rows, keys = []) {
  return el('div', { class: 'scroll' }, el('table', {},
    el('caption', {}, caption),
    el('thead', {}, el('tr', {}, columns.map(([heading, kind]) => el('th', { scope: 'col', class: kind }, heading)))),
    el('tbody', {}, rows.map((cells, row) => el('tr', { 'data-row': keys[row] }, cells.map((cell, column) => {
      const [heading, kind] = columns[column];
      const attributes = { class: kind, 'data-heading': heading };
      return column === 0
        ? el('th', { ...attributes, scope: 'row' }, cell)
        : el('td', attributes, cell);
    }))))));
}

/**
 * Puts `content` in the place of what `container` holds; focus and what was unfolded stay, by their `data-key`. Content
 * that takes over an element of the old one is given as a function: moved before this looks, it would have lost its focus.
 */
export function replace(container, ...content) {
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const unfolded = new Set([...container.querySelectorAll('details[open][data-key]')].map((one) => one.dataset.key));
  const made = content.map((one) => (typeof one === 'function' ? one() : one));
  container.replaceChildren(...made.flat(Infinity).filter(Boolean));
  for (const details of container.querySelectorAll('details[data-key]')) {
    if (unfolded.has(details.dataset.key)) details.open = true;
  }
  if (focused !== undefined) {
    container.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
}

/** A moment, the day left out where it is today. */
export function moment(unixMs) {
  const when = new Date(unixMs);
  const isToday = when.toDateString() === new Date().toDateString();
  const words = isToday ? when.toLocaleTimeString() : when.toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
  return el('time', { datetime: when.toISOString(), title: when.toLocaleString() }, words);
}

/** `1 turn`, `2 turns`. */
export function count(number, noun) {
  return `${number.toLocaleString()} ${noun}${number === 1 ? '' : 's'}`;
}

/** A number with a sign, so that + and - can be told without colour. */
export function signed(number, digits = 2) {
  if (number === null || number === undefined) return 'none';
  const text = Math.abs(number).toFixed(digits);
  return Number(text) === 0 ? text : (number < 0 ? '\u2212' : '+') + text;
}

/** A number, or a dash. */
export function plain(number, digits = 3) {
  if (number === null || number === undefined) return '\u2013';
  return number < 0 ? `\u2212${Math.abs(number).toFixed(digits)}` : number.toFixed(digits);
}

/** The text of `{text, chars}`, and how much is missing. */
export function passage({ text, chars }) {
  const shown = [...text].length;
  return [text, shown < chars && el('span', { class: 'note' }, ` \u2026 cut: ${shown.toLocaleString()} of ${chars.toLocaleString()} characters`)];
}

/**
 * A reply in its parts, behind `lead`: what was thought is folded, and stays unfolded by `key`; what looks like a mark
 * within the words is one of them.
 */
export function reply({ thinking, words, calls }, key, lead) {
  const silent = !words.text && calls.length === 0;
  return [
    thinking && el('details', { class: 'thought', 'data-key': `${key}-thought` },
      el('summary', {}, 'What was thought'), el('p', { class: 'said' }, passage(thinking))),
    (words.text || silent) && el('p', { class: 'said' }, lead && el('b', {}, `${lead} `), silent ? el('span', { class: 'note' }, 'nothing') : passage(words)),
    calls.map((call) => el('p', { class: 'said' }, el('b', {}, 'call '), passage(call))),
  ];
}

/** A verdict as a word with its sign. */
export function verdict(reward) {
  if (reward === 1) return el('span', { class: 'good' }, '+1 approved');
  if (reward === -1) return el('span', { class: 'bad' }, '\u22121 rejected');
  if (reward === 0) return el('span', {}, '0 neutral');
  return el('span', { class: 'note' }, 'no vote could be read');
}
