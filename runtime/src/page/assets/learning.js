// Whether it learns: how its replies were received and what its steps did, drawn as lines.

import { el, svg, table, replace, signed, plain, count } from './dom.js';
import { look } from './wire.js';

const WINDOW = 20;
const WIDTH = 400;
const HEIGHT = 190;
const LEFT = 44;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 30;
/** Points of a line; more are thinned out. */
const MOST_POINTS = 400;

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

/** The mean of the last `WINDOW` values at each place. */
function rolling(values) {
  return values.map((_, place) => mean(values.slice(Math.max(0, place - WINDOW + 1), place + 1)));
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
 * A line over `points` of `{x, y, words}`; `marks` are points drawn as crosses. The words of the nearest one are told
 * below, and the arrow keys go from point to point.
 */
function chart({ key, title, unit, xName, points, marks = [], low, high }) {
  if (points.length + marks.length === 0) return el('figure', {}, el('figcaption', {}, title), el('p', { class: 'note' }, 'Nothing to draw yet.'));
  const all = [...points, ...marks];
  const bottom = low ?? Math.min(...all.map((point) => point.y));
  const top = high ?? Math.max(...all.map((point) => point.y));
  const spread = top - bottom || 1;
  const [firstX, lastX] = [Math.min(...all.map((point) => point.x)), Math.max(...all.map((point) => point.x))];
  const x = (value) => LEFT + (WIDTH - LEFT - RIGHT) * (lastX === firstX ? 0.5 : (value - firstX) / (lastX - firstX));
  const y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((value - bottom) / spread);
  const drawn = thinned(points);
  const line = drawn.map((point, place) => `${place ? 'L' : 'M'}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join('');
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
  drawn.length < 60 && drawn.map((point) => svg('circle', { cx: x(point.x), cy: y(point.y), r: 2.5, class: 'point' })),
  marks.map((mark) => svg('path', { d: `M${x(mark.x) - 4} ${y(mark.y) - 4}l8 8m0 -8l-8 8`, class: 'mark' })),
  cursor);
  return el('figure', {}, el('figcaption', {}, el('b', {}, title), el('span', { class: 'note' }, ` ${unit}`)), drawing, told);
}

/** One sentence that answers the question. */
function answer(rewards) {
  if (rewards.length < 4) return 'Too few replies were judged to say whether it learns.';
  const part = Math.min(WINDOW, Math.floor(rewards.length / 2));
  const [before, after] = [mean(rewards.slice(0, part)), mean(rewards.slice(-part))];
  const verdict = after - before > 0.1 ? 'It is getting better' : after - before < -0.1 ? 'It is getting worse' : 'It stays about as good as it was';
  return `${verdict}: mean reward ${signed(after)} over its last ${part} judged replies, ${signed(before)} over its first ${part}.`;
}

export const view = {
  title: 'Learning',
  open(main) {
    return async (isFirst) => {
      const { body, changed } = await look('/page/learning', isFirst);
      if (!changed) return;
      const judged = body.replies.filter((reply) => reply.reward !== null);
      const rewards = judged.map((reply) => reply.reward);
      const firsts = judged.filter((reply) => reply.first);
      const line = (replies, values, name) => rolling(values).map((value, place) => ({
        x: place + 1,
        y: value,
        words: `${name} ${place + 1}, drawn by version ${replies[place].version}: ${value.toFixed(2)}`,
      }));
      const steps = body.steps.filter((step) => step.loss !== null);
      const losses = (withheld) => steps.filter((step) => (step.withheld !== null) === withheld).map((step) => ({
        x: step.step,
        y: step.loss,
        words: withheld
          ? `step ${step.step} withheld: ${step.withheld}`
          : `step ${step.step}, version ${step.version}, ${count(step.turns, 'turn')}: loss ${plain(step.loss, 4)}, KL ${plain(step.kl, 4)}, gradient norm ${plain(step.grad_norm, 2)}`,
      }));
      const satisfied = firsts.map((reply) => (reply.reward === 1 ? 1 : 0));
      const columns = [['Version', 'label'], ['Judged replies', 'number'], ['Approved', 'number'], ['Rejected', 'number'], ['Mean reward', 'number'], ['First replies', 'number'], ['Satisfied at once', 'number']];
      const rows = body.versions.toReversed().map((heard) => [
        el('a', { href: `#/versions?version=${heard.version}`, 'data-key': `version-${heard.version}` }, String(heard.version)),
        String(heard.replies), String(heard.approved), String(heard.rejected),
        signed((heard.approved - heard.rejected) / heard.replies),
        String(heard.first),
        heard.first ? `${Math.round((100 * heard.first_approved) / heard.first)} %` : '\u2013',
      ]);
      replace(main,
        el('h1', {}, 'Learning'),
        el('p', { class: 'answer' }, answer(rewards)),
        el('div', { class: 'charts' },
          chart({ key: 'reward', title: 'Reward', unit: `mean of the last ${WINDOW} judged replies, from \u22121 to +1`, xName: 'reply', points: line(judged, rewards, 'reply'), low: -1, high: 1 }),
          chart({ key: 'satisfied', title: 'Satisfied first replies', unit: `share approved of the last ${WINDOW} conversations\u2019 first replies`, xName: 'conversation', points: line(firsts, satisfied, 'conversation'), low: 0, high: 1 }),
          chart({ key: 'loss', title: 'Loss', unit: 'of each step; a cross is a step that was withheld', xName: 'step', points: losses(false), marks: losses(true) })),
        body.versions.length > 0 && table('How each version\u2019s replies were received', columns, rows),
        el('p', { class: 'note' },
          `From the latest ${body.most_replies.toLocaleString()} judged replies and ${body.most_steps.toLocaleString()} steps. Turns that the judge could not read are left out of the lines. A policy-gradient loss need not fall while the policy gets better: the reward is what to look at.`));
    };
  },
};
