// Before and after: two versions answer the same prompt.

import { el, replace, passage, reply, count } from './dom.js';
import { look, order } from './wire.js';

const MOST_VERSIONS = 200;
const MOST_PROMPT_CHARS = 8000;

export const view = {
  title: 'Before and after',
  open(main, parameters) {
    const turn = parameters.get('turn');
    const fields = { old: el('select', { id: 'old' }), new: el('select', { id: 'new' }) };
    const prompt = el('textarea', { id: 'prompt', rows: 3, maxlength: MOST_PROMPT_CHARS, required: true });
    const whose = el('p', { class: 'note' });
    const ask = el('button', { type: 'submit', class: 'primary' }, 'Ask both');
    const trouble = el('p', { class: 'bad', role: 'alert' });
    const result = el('div', { 'aria-live': 'polite' });
    const form = el('form', { class: 'question', onsubmit: async (event) => {
      event.preventDefault();
      ask.disabled = true;
      ask.textContent = 'Asking \u2026';
      trouble.textContent = '';
      try {
        const what = turn ? { turn } : { prompt: prompt.value };
        const compared = await order('/page/compare', { ...what, old: Number(fields.old.value), new: Number(fields.new.value) });
        replace(result, answers(compared));
      } catch (error) {
        trouble.textContent = error.message;
      }
      ask.disabled = false;
      ask.textContent = 'Ask both';
    } },
    turn
      ? el('p', {}, 'The prompt of turn ', el('code', {}, turn), ', token for token. ', el('a', { href: '#/compare' }, 'Type one instead'))
      : [el('label', { for: 'prompt' }, 'What a user says'), prompt, whose],
    el('div', { class: 'pair' },
      el('div', {}, el('label', { for: 'old' }, 'Before'), fields.old),
      el('div', {}, el('label', { for: 'new' }, 'After'), fields.new),
      ask),
    trouble);
    main.replaceChildren(
      el('h1', {}, 'Before and after'),
      el('p', { class: 'note' }, 'Both versions are asked now, on a thread of their own, and take the likeliest token each time, so that only their weights differ. Nothing is recorded and nothing is learnt from it.'),
      form, result);
    let chosen = { old: parameters.get('old') ?? '0', new: parameters.get('new') };
    const prefill = async () => {
      const { question } = (await look('/page/overview', true)).body;
      if (!question || question.chars > MOST_PROMPT_CHARS || prompt.value) return;
      prompt.value = question.text;
      whose.textContent = 'That is what the last conversation began with; ask anything else instead.';
    };
    return async (isFirst) => {
      if (isFirst && !turn) await prefill();
      const { body, changed } = await look(`/page/versions?limit=${MOST_VERSIONS}`, isFirst);
      if (!changed) return;
      if (!isFirst) chosen = { old: fields.old.value, new: fields.new.value };
      const kept = body.versions.filter((one) => one.version !== null && (one.kept || one.version === body.current));
      for (const name of ['old', 'new']) {
        fields[name].replaceChildren(...kept.map((one) => {
          const note = one.version === body.current ? ', served now' : one.version === 0 ? ', the base' : '';
          return el('option', { value: one.version }, `version ${one.version}${note}`);
        }));
        const wanted = chosen[name] ?? String(body.current);
        fields[name].value = kept.some((one) => String(one.version) === wanted) ? wanted : String(name === 'old' ? 0 : body.current);
      }
    };
  },
};

function answers(compared) {
  const card = (heading, facts, one) => el('article', {},
    el('h3', {}, `${heading}: version ${one.version}`), el('p', { class: 'note' }, facts), reply(one.reply, `compare-${heading}`));
  const drawn = (heading, one) => card(heading,
    `likeliest tokens \u00b7 ${count(one.tokens, 'token')}${one.finish === 'length' ? ', cut at the limit' : ''} \u00b7 ${one.secs.toFixed(1)} s`, one);
  const same = JSON.stringify(compared.old.reply) === JSON.stringify(compared.new.reply) && compared.old.version !== compared.new.version;
  return [
    el('h2', {}, 'Asked'),
    el('p', { class: 'said' }, passage(compared.asked), el('span', { class: 'note' }, ` ${count(compared.prompt_tokens, 'token')} of prompt`)),
    el('div', { class: 'replies' },
      compared.recorded && card('Then', `from the journal \u00b7 sampled at temperature ${compared.recorded.temperature}`, compared.recorded),
      drawn('Before', compared.old),
      drawn('After', compared.new)),
    same && el('p', {}, 'Both answer the same, word for word.'),
  ];
}
