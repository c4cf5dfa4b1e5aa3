// Where a turn stands, in words that say what it waits for.

import { el } from './dom.js';

/** Each state: its name in the journal, what it is called here, and what that means. */
const STATES = [
  ['waiting', 'waiting', 'for what follows the reply: a user\u2019s answer, a tool\u2019s output or a rating'],
  ['followed', 'to judge', 'something followed; it waits for a judge to read it'],
  ['judged', 'to teach', 'it has a verdict and a hint; it waits for a teacher to be shown the hint'],
  ['held', 'held', 'it is a step of an episode; it waits for its outcome, and for the others of its group'],
  ['ready', 'ready', 'all is known; it waits until enough are ready for a batch'],
  ['leased', 'in a batch', 'a step learns from it now, or its version is not on the disk yet'],
  ['trained', 'trained', 'a version has learnt from it'],
  ['answered', 'kept out', 'never trained on: a side request, a step of a held-out task, or one that came with X-No-Train or has such words in its history'],
  ['dropped', 'dropped', 'given up, and never trained on; the turn says why'],
  ['quarantined', 'withheld', 'its step left the allowed band and was not applied'],
  ['dead', 'dead', 'given up after several tries: waits for \u201copenclaw-rl dead retry\u201d or \u201cdrop\u201d'],
];

/** What a state is called. */
export function label(state) {
  return STATES.find(([name]) => name === state)?.[1] ?? state;
}

/** What each means, folded up. */
export function stateLegend() {
  return el('details', { class: 'legend', 'data-key': 'states' },
    el('summary', {}, 'What the states mean'),
    el('dl', { class: 'states' }, STATES.map(([name, words, meaning]) => [
      el('dt', {}, el('span', { class: `badge is-${name}` }, words)), el('dd', {}, meaning)])));
}
