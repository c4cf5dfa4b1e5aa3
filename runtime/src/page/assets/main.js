// The frame: signing in, which view is shown, and looking again every two seconds while somebody watches.

import { el, replace, count } from './dom.js';
import * as wire from './wire.js';
import * as sessions from './sessions.js';
import * as learning from './learning.js';
import * as versions from './versions.js';
import * as compare from './compare.js';

const PERIOD_MS = 2000;
const LONGEST_WAIT_MS = 30000;

const main = document.getElementById('main');
const bar = document.getElementById('bar');
const trouble = document.getElementById('trouble');

/** Views by the first part of the address; each has `title`, and `open(main, parameters)` that returns `refresh`. */
const VIEWS = {
  sessions: sessions.list,
  session: sessions.one,
  learning: learning.view,
  versions: versions.view,
  compare: compare.view,
};

let shown = { generation: 0, refresh: async () => {}, timer: undefined };

function address() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  const name = Object.hasOwn(VIEWS, path) ? path : 'sessions';
  return { name, parameters: new URLSearchParams(query ?? '') };
}

function complain(message) {
  trouble.hidden = !message;
  trouble.textContent = message ?? '';
}

function signIn(message) {
  clearTimeout(shown.timer);
  shown = { generation: shown.generation + 1, refresh: async () => {}, timer: undefined };
  bar.hidden = true;
  document.title = 'Sign in \u2013 openclaw-rl';
  complain(message);
  const token = el('input', { id: 'token', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true });
  replace(main, el('form', {
    class: 'sign-in',
    onsubmit: (event) => {
      event.preventDefault();
      wire.admit(token.value.trim());
      open();
    },
  },
  el('h1', {}, 'openclaw-rl'),
  el('p', {}, 'What a run has heard and learnt is for its operator. ',
    el('code', {}, 'openclaw-rl page'), ' prints a link that opens this page; the token is also in ',
    el('code', {}, 'admin.token'), ' in the run\u2019s folder.'),
  el('label', { for: 'token' }, 'Token'),
  token,
  el('button', { type: 'submit', class: 'primary' }, 'Open')));
  token.focus();
}

async function showStatus() {
  const { body } = await wire.look('/status');
  document.getElementById('run').textContent = body.run;
  const troubled = body.actors.filter((actor) => ['failed', 'stuck', 'restarting'].includes(actor.state));
  const actors = troubled.length
    ? el('span', { class: 'bad' }, troubled.map((actor) => `${actor.name} ${actor.state}`).join(', '))
    : `${count(body.actors.length, 'actor')} well`;
  replace(document.getElementById('status'),
    `version ${body.version} \u00b7 ${count(body.sessions, 'session')} \u00b7 `, actors,
    body.journal.healthy ? '' : el('span', { class: 'bad' }, ` \u00b7 journal: ${body.journal.detail}`),
    body.stopping ? el('span', { class: 'bad' }, ' \u00b7 stopping') : '');
  return body;
}

async function watch(generation, isFirst, wait) {
  if (generation !== shown.generation) return;
  let next = PERIOD_MS;
  if (isFirst || document.visibilityState === 'visible') {
    try {
      await showStatus();
      if (generation !== shown.generation) return;
      await shown.refresh(isFirst);
      if (generation !== shown.generation) return;
      complain(null);
    } catch (error) {
      if (generation !== shown.generation) return;
      if (error instanceof wire.NotAdmitted) {
        wire.leave();
        signIn('That is not this run\u2019s token. A run has a new one each time it is launched.');
        return;
      }
      const isRefusal = error instanceof wire.Refused;
      complain(isRefusal ? error.message : 'The run does not answer. Trying again \u2026');
      next = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }
  if (isFirst) main.removeAttribute('aria-busy');
  shown.timer = setTimeout(() => watch(generation, false, next), next);
}

function open() {
  if (!wire.hasToken()) return signIn(null);
  clearTimeout(shown.timer);
  const { name, parameters } = address();
  const view = VIEWS[name];
  const generation = shown.generation + 1;
  bar.hidden = false;
  for (const link of bar.querySelectorAll('nav a')) {
    const isHere = link.getAttribute('href') === `#/${view.under ?? name}`;
    if (isHere) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${view.title} \u2013 openclaw-rl`;
  complain(null);
  main.replaceChildren();
  main.setAttribute('aria-busy', 'true');
  const refresh = view.open(main, parameters);
  shown = { generation, refresh, timer: undefined };
  watch(generation, true, PERIOD_MS);
}

document.getElementById('leave').addEventListener('click', () => {
  wire.leave();
  signIn(null);
});
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', () => {
  wire.admitFromAddress();
  open();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState !== 'visible' || !wire.hasToken()) return;
  clearTimeout(shown.timer);
  watch(shown.generation, false, PERIOD_MS);
});

wire.admitFromAddress();
open();
