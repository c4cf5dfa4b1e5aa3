// Episodes of agents: the list, and one of them step by step.

import { el, table, replace, moment, count, passage, reply, signed } from './dom.js';
import { look } from './wire.js';
import { player } from './film.js';
import { episodeLink, judged, sessionLink } from './sessions.js';
import { label, stateLegend } from './states.js';

/** Lines of what the agent saw that are shown before it is unfolded. */
const LINES = 8;
const CHARS = 700;

/** How an episode came out, or where it stands. */
function outcome({ state, reward, success, reason }) {
  if (state === 'open') return el('span', {}, 'goes on');
  if (state === 'abandoned') return [el('span', { class: 'bad' }, 'abandoned'), reason && [': ', passage(reason)]];
  if (success === true) return el('span', { class: 'good' }, 'done');
  if (success === false) return el('span', { class: 'bad' }, 'not done');
  return el('span', {}, 'ended');
}

/** Those that it is compared with. The node's own agents play held-out tasks without a group. */
function split({ group, session }) {
  if (group) return ['group ', passage(group.name), ` of ${group.of}`];
  return session.startsWith('own:') ? 'held out: never trained on' : 'in no group';
}

/** Episodes, the newest first. */
export const list = {
  title: 'Episodes',
  open(main, parameters) {
    const before = parameters.get('before');
    const path = `/page/episodes${before ? `?before=${encodeURIComponent(before)}` : ''}`;
    return async (isFirst) => {
      const { body, changed } = await look(path, isFirst);
      if (!changed) return;
      const { episodes, next } = body;
      const columns = [['Task', 'wide'], ['Environment', ''], ['Outcome', ''], ['Reward', 'number'], ['Steps', 'number'], ['Version', 'number'], ['Began', 'time']];
      const rows = episodes.map((one) => [
        episodeLink(one.episode, passage(one.task)),
        passage(one.environment),
        outcome(one),
        one.reward === null ? '\u2013' : signed(one.reward),
        String(one.steps),
        one.version === null ? '\u2013' : String(one.version),
        moment(one.began_unix_ms),
      ]);
      replace(main,
        el('h1', {}, 'Episodes'),
        episodes.length
          ? [el('p', { class: 'note' }, 'What agents did to reach an end, and whether they did. ', el('code', {}, 'openclaw-rl episodes success'), ' sums it up by version.'),
            table(before ? 'Earlier episodes' : 'Episodes, the newest first', columns, rows, episodes.map((one) => one.episode))]
          : el('p', {}, before ? 'Nothing is older.' : 'No agent has begun an episode yet.'),
        el('nav', { class: 'pages', 'aria-label': 'Pages' },
          before && el('a', { href: '#/episodes', 'data-key': 'newest' }, 'Newest'),
          next !== null && el('a', { href: `#/episodes?before=${next}`, 'data-key': 'older' }, 'Older episodes')));
    };
  },
};

/** One episode. */
export const one = {
  title: 'Episode',
  under: 'episodes',
  open(main, parameters) {
    const id = parameters.get('id') ?? '';
    const after = parameters.get('after');
    const path = `/page/episode?id=${encodeURIComponent(id)}${after ? `&after=${encodeURIComponent(after)}` : ''}`;
    const head = el('div', {});
    const steps = el('div', { class: 'turns' });
    const pages = el('nav', { class: 'pages', 'aria-label': 'Pages' });
    const { film, show } = player();
    main.replaceChildren(
      el('p', { class: 'crumbs' }, el('a', { href: '#/episodes' }, 'Episodes')),
      el('h1', {}, 'Episode ', el('code', {}, id)),
      head, film, stateLegend(), steps, pages);
    // A step that has not changed is left as it is: what is focused, unfolded or selected in it stays.
    const known = [];
    return async (isFirst) => {
      const { body, changed } = await look(path, isFirst);
      if (!changed) return;
      show((await look(`/page/film?id=${encodeURIComponent(id)}`, true)).body.frames);
      replace(head, ...summary(body.episode));
      body.steps.forEach((step, place) => {
        const said = JSON.stringify(step);
        if (known[place]?.said === said) return;
        const article = known[place]?.article ?? el('article', { 'data-step': step.number });
        replace(article, story(step, body.episode.session));
        known[place] = { said, article };
        if (!article.isConnected) steps.append(article);
      });
      known.splice(body.steps.length).forEach(({ article }) => article.remove());
      const here = `#/episode?id=${encodeURIComponent(id)}`;
      replace(pages,
        after && el('a', { href: here, 'data-key': 'first' }, 'First steps'),
        body.next !== null && el('a', { href: `${here}&after=${body.next}`, 'data-key': 'next' }, 'Further steps'));
    };
  },
};

function summary(episode) {
  const facts = [count(episode.steps, 'step'), episode.version !== null && `version ${episode.version}`];
  const numbers = [['reward', episode.reward], ...episode.numbers].filter(([, value]) => value !== null);
  return [
    el('p', { class: 'answer' }, el('b', {}, passage(episode.environment)), ' ', passage(episode.task), ': ', outcome(episode)),
    el('p', { class: 'note' }, moment(episode.began_unix_ms), ' \u00b7 ', facts.filter(Boolean).join(' \u00b7 '), ' \u00b7 ', split(episode), ' \u00b7 ',
      sessionLink(episode.session, 'its conversation')),
    numbers.length > 0 && el('dl', { class: 'numbers' }, numbers.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, name === 'reward' ? signed(value) : String(Number(value.toFixed(4))))))),
  ].filter(Boolean);
}

function part(heading, ...content) {
  return el('section', {}, el('h3', {}, heading), ...content);
}

function story(step, session) {
  const { shown } = step;
  const score = step.score === null ? el('span', { class: 'note' }, 'no score') : el('span', { class: step.score > 0 ? 'good' : step.score < 0 ? 'bad' : null }, signed(step.score));
  const heading = (state) => el('h2', {}, `Step ${step.number} `, state && el('span', { class: `badge is-${state}` }, label(state)), ' ', score);
  if (!shown) return [heading(), el('p', { class: 'note' }, `${step.turn} has left the journal.`)];
  if (shown.unreadable) return [heading(), el('p', { class: 'bad' }, shown.unreadable), el('p', { class: 'note' }, step.turn)];
  const state = shown.fate.dead ? 'dead' : shown.fate.state;
  return [
    heading(state),
    el('div', { class: 'halves' },
      el('div', {},
        part('Action', reply(shown.reply, step.turn)),
        part('What it saw then', observation(step))),
      el('div', {},
        part('Verdict', verdictOf(shown)),
        part('What became of it', el('p', {}, `${shown.fate.words}. `,
          el('a', { href: `#/session?id=${encodeURIComponent(session)}&after=${shown.place - 1}&turn=${encodeURIComponent(step.turn)}`, 'data-key': `${step.turn}-turn` }, 'The whole turn'))))),
  ];
}

/** What followed, its beginning where it is long. */
function observation(step) {
  const { shown: { next_state: next }, told, turn } = step;
  const seen = next ? [[next.is_error ? 'error' : next.kind, next.text, next.is_error]] : told.map((message) => [message.role, message.text, false]);
  if (seen.every(([, text]) => !text.text)) return el('p', { class: 'note' }, 'Nothing.');
  return seen.map(([author, text, isError], place) => [
    el('p', { class: 'said' }, el('b', { class: isError ? 'bad' : null }, `${author} `), beginning(text.text) === text.text ? passage(text) : `${beginning(text.text)} \u2026`),
    beginning(text.text) !== text.text && el('details', { 'data-key': `${turn}-seen-${place}` },
      el('summary', {}, `More (${text.chars.toLocaleString()} characters)`), el('p', { class: 'said' }, passage(text))),
  ]);
}

function beginning(text) {
  return [...text.split('\n').slice(0, LINES).join('\n')].slice(0, CHARS).join('');
}

/** The votes, or the rule and its reason. */
function verdictOf(turn) {
  const reason = turn.next_state?.by_rule;
  const waits = turn.fate.state === 'waiting' || turn.fate.state === 'followed';
  if (!turn.verdict && !reason && !waits) return el('p', { class: 'note' }, 'Nobody judged it: the outcome alone counts.');
  return [
    turn.verdict || !reason ? judged(turn.verdict, turn.rated) : null,
    reason && el('p', {}, !turn.verdict && [el('span', { class: turn.next_state.rating > 0 ? 'good' : 'bad' }, signed(turn.next_state.rating, 0)), ' by the environment\u2019s rule: '], turn.verdict && 'Why: ', passage(reason)),
  ];
}
