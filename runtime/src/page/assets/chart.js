// A line drawn over points, told by pointer and keyboard.

import { el, svg } from './dom.js';

/** Values that a point of a rolling line is the mean of. */
export const WINDOW = 20;
/** Fewer than this are drawn as what they are: hollow points, and no line. */
export const FEW = 5;
/** Width and height of a drawing; a small one beside what matters more. */
const SIZES = { large: [400, 190], small: [240, 150] };
const LEFT = 44;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 30;
/** Points of a line; more are thinned out. */
const MOST_POINTS = 400;

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

/** The mean of the last `WINDOW` values at each place, and of how many it is. */
export function rolling(values) {
  return values.map((_, place) => {
    const last = values.slice(Math.max(0, place - WINDOW + 1), place + 1);
    return { y: mean(last), n: last.length, few: last.length < FEW };
  });
}

function thinned(points) {
  const every = Math.ceil(points.length / MOST_POINTS);
  return points.filter((_, place) => place % every === 0 || place === points.length - 1);
}

function ticks(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

/**
 * A line over `points` of `{x, y, words, few}`; `marks` are points drawn as crosses, and those of `few` values are
 * hollow and stand alone. The words of the nearest one are told below, and the arrow keys go from point to point.
 */
export function chart({ key, title, unit, xName, points, marks = [], low, high, size = 'large' }) {
  const [WIDTH, HEIGHT] = SIZES[size];
  if (points.length + marks.length === 0) return el('figure', { class: size }, el('figcaption', {}, el('b', {}, title)), el('p', { class: 'note' }, 'Nothing to draw yet.'));
  const all = [...points, ...marks];
  const bottom = low ?? Math.min(...all.map((point) => point.y));
  const top = high ?? Math.max(...all.map((point) => point.y));
  const spread = top - bottom || 1;
  const [firstX, lastX] = [Math.min(...all.map((point) => point.x)), Math.max(...all.map((point) => point.x))];
  const x = (value) => LEFT + (WIDTH - LEFT - RIGHT) * (lastX === firstX ? 0.5 : (value - firstX) / (lastX - firstX));
  const y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((value - bottom) / spread);
  const drawn = thinned(points);
  const sure = drawn.filter((point) => !point.few);
  const line = sure.map((point, place) => `${place ? 'L' : 'M'}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join('');
  const cursor = svg('circle', { r: 4, class: 'cursor', visibility: 'hidden' });
  const told = el('p', { class: 'readout' }, `latest: ${(points.at(-1) ?? marks.at(-1)).words}`);
  let at = drawn.length - 1;
  const tell = (point) => {
    cursor.setAttribute('cx', x(point.x));
    cursor.setAttribute('cy', y(point.y));
    cursor.setAttribute('visibility', 'visible');
    told.textContent = point.words;
  };
  const drawing = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: 'img',
    'aria-label': `${title}. ${all.length} points, latest ${all.at(-1).words}. Arrow keys go from point to point.`,
    tabindex: 0,
    'data-key': key,
    onpointermove: (event) => {
      const box = drawing.getBoundingClientRect();
      const wanted = ((event.clientX - box.left) / box.width) * WIDTH;
      const distance = (point) => Math.abs(x(point.x) - wanted);
      tell([...drawn, ...marks].reduce((best, point) => (distance(point) < distance(best) ? point : best)));
    },
    onkeydown: (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (move === undefined || drawn.length === 0) return;
      event.preventDefault();
      at = Math.max(0, Math.min(drawn.length - 1, at + move));
      tell(drawn[at]);
    },
  },
  ticks(bottom, top).map((value) => [
    svg('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: value === 0 ? 'zero' : 'grid' }),
    svg('text', { x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end' }, value < 0 ? `\u2212${Math.abs(value)}` : String(value)),
  ]),
  svg('text', { x: LEFT, y: HEIGHT - 8 }, `${xName} ${firstX}`),
  lastX !== firstX && svg('text', { x: WIDTH - RIGHT, y: HEIGHT - 8, 'text-anchor': 'end' }, `${xName} ${lastX}`),
  svg('path', { d: line, class: 'line' }),
  drawn.filter((point) => point.few || drawn.length < 60)
    .map((point) => svg('circle', { cx: x(point.x), cy: y(point.y), r: 2.5, class: point.few ? 'point few' : 'point' })),
  marks.map((mark) => svg('path', { d: `M${x(mark.x) - 4} ${y(mark.y) - 4}l8 8m0 -8l-8 8`, class: 'mark' })),
  cursor);
  return el('figure', { class: size }, el('figcaption', {}, el('b', {}, title), el('span', { class: 'note' }, ` ${unit}`)), drawing, told);
}
