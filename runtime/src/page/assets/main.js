// The frame: signing in, which view is shown, and looking again every two seconds while somebody watches.

import { el, replace, moment, count } from './dom.js';
import * as wire from './wire.js';
import * as overview from './overview.js';
import * as sessions from './sessions.js';
import * as episodes from './episodes.js';
import * as learning from './learning.js';
import * as versions from './versions.js';
import * as compare from './compare.js';

const PERIOD_MS = 2000;
const LONGEST_WAIT_MS = 30000;

const main = document.getElementById('main');
const bar = document.getElementById('bar');
const trouble = document.getElementById('trouble');
const needs = document.getElementById('needs');

/** Views by the first part of the address; each has `title`, and `open(main, parameters)` that returns `refresh`. */
const VIEWS = {
  overview: overview.view,
  sessions: sessions.list,
  session: sessions.one,
  episodes: episodes.list,
  episode: episodes.one,
  learning: learning.view,
  versions: versions.view,
  compare: compare.view,
};

/** When the run last answered, and whether it was ending then. */
let last = { seen: null, stopping: false };
/** What the section of needs shows. */
let needed = '';
let shown = { generation: 0, refresh: async () => {}, timer: undefined };

function address() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  const name = Object.hasOwn(VIEWS, path) ? path : 'overview';
  return { name, parameters: new URLSearchParams(query ?? '') };
}

function complain(...message) {
  const said = message.flat().filter(Boolean);
  trouble.hidden = said.length === 0;
  trouble.replaceChildren(...said);
}

/** What is said when nobody answers: what is shown is what was. */
function ended() {
  needed = '';
  needs.hidden = true;
  replace(document.getElementById('status'), 'not running');
  return [
    last.stopping ? 'The run was stopped' : last.seen ? 'The run has ended, or cannot be reached' : 'The run does not answer',
    last.seen && [': it was last seen at ', moment(last.seen), ', and this is what it showed then'],
    '. When it is launched again it has a new key: ', el('code', {}, 'openclaw-rl page'), ' prints a new link.',
  ].flat();
}

/** Actors that do not come back by themselves, each with what to type; and those that have something to look into. */
function showNeeds(actors, generation) {
  const down = actors.filter((actor) => actor.state === 'failed' || actor.state === 'stuck');
  const advising = actors.filter((actor) => actor.advice && !down.includes(actor));
  const said = JSON.stringify([...down, ...advising].map(({ name, state, last_error: error, advice }) => [name, state, error, advice]));
  needs.hidden = down.length + advising.length === 0;
  // What has not changed stays, so that it can be selected.
  if (said === needed) return;
  needed = said;
  replace(needs, [...down.map((actor) => {
    const command = `openclaw-rl restart ${actor.name}`;
    const told = el('span', { role: 'status' });
    const copy = el('button', { type: 'button', 'data-key': `copy-${actor.name}`, onclick: async () => {
      const done = await navigator.clipboard.writeText(command).then(() => true, () => false);
      told.textContent = done ? ' Copied.' : ' The browser does not let this page copy: select it.';
    } }, 'Copy');
    const restart = el('button', { type: 'button', class: 'primary', 'data-key': `restart-${actor.name}`, onclick: async () => {
      restart.disabled = true;
      told.textContent = ' \u2026';
      try {
        const { message } = await wire.order('/restart', { name: actor.name });
        told.textContent = ` ${message}.`;
      } catch (error) {
        told.textContent = ` ${error.message}`;
      }
      restart.disabled = false;
      await watch(generation, false, PERIOD_MS);
    } }, 'Restart it');
    return el('p', {}, el('b', { class: 'bad' }, `${actor.name} ${actor.state}`), actor.last_error ? `: ${actor.last_error}. ` : '. ',
      'The rest goes on, and its work waits. ', el('code', {}, command), ' ', copy, ' ', restart, told);
  }), ...advising.map((actor) => el('p', {}, el('b', {}, actor.name), `: ${actor.advice}`))]);
}

function signIn(message) {
  clearTimeout(shown.timer);
  shown = { generation: shown.generation + 1, refresh: async () => {}, timer: undefined };
  bar.hidden = true;
  needs.hidden = true;
  needed = '';
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

async function showStatus(generation) {
  const { body } = await wire.look('/status');
  last = { seen: Date.now(), stopping: body.stopping };
  showNeeds(body.actors, generation);
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
      await showStatus(generation);
      if (generation !== shown.generation) return;
      await shown.refresh(isFirst);
      if (generation !== shown.generation) return;
      complain();
    } catch (error) {
      if (generation !== shown.generation) return;
      if (error instanceof wire.NotAdmitted) {
        wire.leave();
        signIn(last.seen
          ? ['The run was launched again and has a new key: ', el('code', {}, 'openclaw-rl page'), ' prints a new link.']
          : 'That is not this run\u2019s token. A run has a new one each time it is launched.');
        return;
      }
      complain(error instanceof wire.Away ? ended() : error.message);
      next = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }
  if (isFirst) main.removeAttribute('aria-busy');
  clearTimeout(shown.timer);
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
  complain();
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
