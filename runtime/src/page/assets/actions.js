// What a person says of a turn: whether the reply was good, what the hint should be, or that nothing is to be learnt
// from it. The same element stays with its turn, so that what is typed outlives what is seen anew.

import { el, svg } from './dom.js';
import { order } from './wire.js';

const MOST_HINT_CHARS = 1000;

/** Drawn, because not every machine has a font with one. */
const thumb = (down) => svg('svg', { viewBox: '0 0 16 16', width: 15, height: 15, class: 'thumb', 'aria-hidden': 'true' },
  svg('path', { transform: down && 'rotate(180 8 8)', d: 'M1.5 7h2.6v7H1.5zM5.6 14V7.3L8.7 1.6c1 0 1.8.8 1.6 1.9L9.8 6.2h3.6c.9 0 1.5.8 1.3 1.6l-1.2 5c-.2.7-.8 1.2-1.5 1.2z' }));

/** For the turn `id`; `seen` looks again. `show(turn, teaches)` brings it up to date. */
export function actions(id, seen) {
  const told = el('p', { role: 'status', class: 'note' });
  let busy = false;
  // Not by disabling what was pressed: it would lose the keyboard's focus.
  const send = async (verb, body) => {
    if (busy) return;
    busy = true;
    element.setAttribute('aria-busy', 'true');
    told.className = 'note';
    told.textContent = '\u2026';
    try {
      const { message } = await order(verb, { turn: id, ...body });
      told.textContent = `${message[0].toUpperCase()}${message.slice(1)}.`;
      await seen();
    } catch (error) {
      told.className = 'bad';
      told.textContent = error.message;
    }
    busy = false;
    element.removeAttribute('aria-busy');
  };
  const button = (key, words, does) => el('button', { type: 'button', 'data-key': `${id}-${key}`, onclick: does }, words);
  const rate = (rating) => () => send('/turn/rate', { rating });
  const good = button('good', [thumb(false), ' Good'], rate('up'));
  const bad = button('bad', [thumb(true), ' Bad'], rate('down'));
  const drop = button('drop', 'Never learn from this', () => send('/turn/drop', {}));
  const hint = el('textarea', { id: `${id}-hint`, rows: 2, maxlength: MOST_HINT_CHARS, required: true, 'data-key': `${id}-hint`, oninput: () => { typed = true; } });
  const show = el('button', { type: 'submit', 'data-key': `${id}-show` }, 'Show this to the teacher');
  let typed = false;
  const form = el('details', { 'data-key': `${id}-write` },
    el('summary', { 'data-key': `${id}-write-summary` }, 'Write the hint yourself'),
    el('form', { class: 'hint', onsubmit: async (event) => {
      event.preventDefault();
      await send('/turn/hint', { hint: hint.value });
    } },
    el('label', { for: hint.id }, 'What should have been done, in your words; a teacher is shown them as they are'),
    hint, show));
  const controls = el('div', { class: 'actions' }, good, bad, drop);
  const over = el('p', { class: 'note' });
  const element = el('section', {}, el('h3', {}, 'Your word'), controls, form, over, told);
  return {
    element,
    show(turn, teaches) {
      // What an environment's rule said is no person's word.
      const rated = turn.rated ?? (turn.next_state?.by_rule ? null : turn.next_state?.rating) ?? null;
      good.setAttribute('aria-pressed', String(rated === 1));
      bad.setAttribute('aria-pressed', String(rated === -1));
      controls.hidden = !turn.changeable;
      form.hidden = !turn.changeable || !teaches;
      over.hidden = turn.changeable;
      over.textContent = `Nothing can be changed any more: ${turn.fate.words}.`;
      const known = turn.hints[0]?.text ?? '';
      if (!typed && hint.value !== known) hint.value = known;
    },
  };
}
