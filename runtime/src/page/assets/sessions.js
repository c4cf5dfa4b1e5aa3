// Conversations: the list, and one of them turn by turn.

import { el, table, replace, moment, count, passage, reply, verdict } from './dom.js';
import { look } from './wire.js';
import { heatmap, legend } from './heatmap.js';
import { actions } from './actions.js';
import { label, stateLegend } from './states.js';

/** A link to a conversation. */
export const sessionLink = (id, words, key) => el('a', { href: `#/session?id=${encodeURIComponent(id)}`, 'data-key': key ?? `session-${id}` }, words);

/** A link to an episode. */
export const episodeLink = (id, words, key) => el('a', { href: `#/episode?id=${encodeURIComponent(id)}`, 'data-key': key ?? `episode-${id}` }, words);

/** How often each verdict was given, in the order that is read first. */
function verdicts({ approved, rejected, neutral }) {
  const times = (number, words, kind) => number > 0 && [el('span', { class: kind }, `${number} ${words}`), ' '];
  const found = [times(approved, 'up', 'good'), times(rejected, 'down', 'bad'), times(neutral, 'neutral', 'note')];
  return found.some(Boolean) ? found : '\u2013';
}

/** Conversations as rows. */
export function sessionTable(caption, sessions) {
  const columns = [['Began with', 'wide'], ['Turns', 'number'], ['Verdicts', 'tight'], ['Now', 'now'], ['Version', 'number'], ['Last turn', 'time']];
  const rows = sessions.map((session) => [
    sessionLink(session.session, session.opening.text.trim() || session.session),
    String(session.turns),
    verdicts(session),
    session.states.map(([state, number], place) => [place > 0 && ', ', el('span', {}, `${number} ${label(state)}`)]),
    session.version === null ? '\u2013' : String(session.version),
    moment(session.last_unix_ms),
  ]);
  return table(caption, columns, rows, sessions.map((session) => session.session));
}

/** The conversations, the newest first. */
export const list = {
  title: 'Sessions',
  open(main, parameters) {
    const before = parameters.get('before');
    const path = `/page/sessions${before ? `?before=${encodeURIComponent(before)}` : ''}`;
    return async (isFirst) => {
      const { body, changed } = await look(path, isFirst);
      if (!changed) return;
      const { sessions, next, totals } = body;
      replace(main,
        el('h1', {}, 'Sessions'),
        el('p', { class: 'note' },
          `${count(totals.sessions, 'session')} and ${count(totals.turns, 'turn')} since the run began; ${totals.trained} trained on, ${totals.dropped} dropped, ${totals.quarantined} withheld.`),
        sessions.length
          ? [sessionTable(before ? 'Earlier conversations' : 'Conversations, the newest first', sessions), stateLegend()]
          : el('p', {}, before ? 'Nothing is older.' : 'Nobody has talked to the policy yet. Point a client at the gateway, or type ', !before && el('code', {}, 'openclaw-rl chat'), !before && '.'),
        el('nav', { class: 'pages', 'aria-label': 'Pages' },
          before && el('a', { href: '#/sessions', 'data-key': 'newest' }, 'Newest'),
          next !== null && el('a', { href: `#/sessions?before=${next}`, 'data-key': 'older' }, 'Older sessions')));
    };
  },
};

/** One conversation. */
export const one = {
  title: 'Session',
  under: 'sessions',
  open(main, parameters) {
    const id = parameters.get('id') ?? '';
    const after = parameters.get('after');
    const path = `/page/session?id=${encodeURIComponent(id)}${after ? `&after=${encodeURIComponent(after)}` : ''}`;
    const turns = el('div', { class: 'turns' });
    const episode = el('p', { class: 'note' });
    const pages = el('nav', { class: 'pages', 'aria-label': 'Pages' });
    main.replaceChildren(
      el('p', { class: 'crumbs' }, el('a', { href: '#/sessions' }, 'Sessions')),
      el('h1', {}, 'Session ', el('code', {}, id)),
      episode, legend(), stateLegend(), turns, pages);
    // A turn that has not changed is left as it is: what is focused, unfolded or selected in it stays.
    const known = new Map();
    // One that is linked to is brought into sight, once.
    let wanted = parameters.get('turn');
    const refresh = async (isFirst) => {
      const { body, changed } = await look(path, isFirst);
      if (!changed) return;
      episode.hidden = !body.episode;
      if (body.episode) replace(episode, 'Steps of the episode ', episodeLink(body.episode.episode, body.episode.episode), ' in ', passage(body.episode.environment), ': ', passage(body.episode.task));
      body.turns.forEach((turn, place) => {
        const said = JSON.stringify(turn);
        const last = known.get(turn.turn);
        if (last?.said === said) return;
        const article = last?.article ?? el('article', { 'data-turn': turn.turn });
        const word = last?.word ?? actions(turn.turn, () => refresh(false));
        if (!turn.unreadable) word.show(turn, body.teaches);
        replace(article, () => (turn.unreadable ? unreadable(turn) : story(turn, article, word.element)));
        known.set(turn.turn, { said, article, word });
        if (turns.children[place] !== article) turns.insertBefore(article, turns.children[place] ?? null);
      });
      const kept = new Set(body.turns.map((turn) => turn.turn));
      for (const [turn, { article }] of known) {
        if (!kept.has(turn)) {
          article.remove();
          known.delete(turn);
        }
      }
      const found = wanted !== null && known.get(wanted);
      if (found) {
        found.article.scrollIntoView({ block: 'start' });
        wanted = null;
      }
      const here = `#/session?id=${encodeURIComponent(id)}`;
      replace(pages,
        after && el('a', { href: here, 'data-key': 'first' }, 'First turns'),
        body.next !== null && el('a', { href: `${here}&after=${body.next}`, 'data-key': 'next' }, 'Further turns'));
    };
    return refresh;
  },
};

function unreadable(turn) {
  return [el('h2', {}, 'A turn that cannot be read'), el('p', { class: 'bad' }, turn.unreadable), el('p', { class: 'note' }, turn.turn)];
}

function part(heading, ...content) {
  return el('section', {}, el('h3', {}, heading), ...content);
}

const FINISHES = { stop: '', length: 'cut at its limit', cancelled: 'its client left' };

function story(turn, article, word) {
  const tokens = turn.tokens;
  const showAll = async () => {
    const { body } = await look(`/page/turn?id=${encodeURIComponent(turn.turn)}`, true);
    replace(article, () => story(body, article, word));
  };
  const replied = tokens.teacher
    ? heatmap(turn.turn, tokens, turn.tokens.text.length < 1000 && showAll)
    : reply(turn.reply, turn.turn);
  const title = turn.kind === 'side' ? 'Side request' : `Turn ${turn.index}`;
  const facts = [`version ${turn.version}`, `temperature ${turn.temperature}`, `${turn.prompt_tokens} tokens in, ${tokens.total} out`, FINISHES[turn.finish]];
  return [
    el('h2', {}, title, ' ', el('span', { class: `badge is-${turn.fate.dead ? 'dead' : turn.fate.state}` }, label(turn.fate.dead ? 'dead' : turn.fate.state))),
    el('p', { class: 'note' }, moment(turn.at_unix_ms), ' \u00b7 ', facts.filter(Boolean).join(' \u00b7 ')),
    el('div', { class: 'halves' },
      el('div', {},
        part('Asked', turn.asked.map((message) => el('p', { class: 'said' }, el('b', {}, `${message.role} `), passage(message.text)))),
        part('Reply', replied),
        part('What followed', following(turn.next_state))),
      el('div', {},
        part('Judge', judged(turn.verdict, turn.rated)),
        (turn.verdict || turn.corrected) && part('Hint', hint(turn)),
        part('What became of it',
          el('p', { class: 'fate' }, fate(turn)),
          el('p', {}, el('a', { href: `#/compare?turn=${encodeURIComponent(turn.turn)}&old=${turn.version}`, 'data-key': `${turn.turn}-compare` }, 'Ask two versions the same again'))),
        word)),
  ];
}

/** In words; the version that learnt from it leads to itself. */
function fate(turn) {
  const { words, version } = turn.fate;
  const name = `version ${version}`;
  const [before, ...behind] = words.split(name);
  if (version === null || behind.length === 0) return words;
  return [before, el('a', { href: `#/versions?version=${version}`, 'data-key': `${turn.turn}-fate` }, name), behind.join(name)];
}

const AUTHORS = { user: 'user', tool: 'tool', feedback: 'feedback' };

function following(next) {
  if (!next) return el('p', { class: 'note' }, 'Nothing yet.');
  const rating = next.by_rule ? '' : next.rating === 1 ? ' rated it up' : next.rating === -1 ? ' rated it down' : '';
  return el('p', { class: 'said' }, el('b', {}, `${AUTHORS[next.kind] ?? next.kind}${rating} `), next.is_error && el('span', { class: 'bad' }, 'error '), passage(next.text));
}

/** What was made of a turn: the verdict, and each vote with what was said. */
export function judged(said, rated) {
  if (!said) return el('p', { class: 'note' }, rated === null ? 'Not judged yet.' : 'Not read yet; your rating will count.');
  const by = said.rule === 'rating' ? ` as a person rated it${said.votes.length ? '; the judge had said:' : ''}`
    : said.rule ? ` by the rule \u201c${said.rule}\u201d, without a vote` : ` of ${count(said.votes.length, 'vote')}`;
  const outcome = el('p', {}, verdict(said.reward), by);
  const votes = said.votes.map((vote) => el('li', {}, verdict(vote.vote), ' ',
    el('q', {}, vote.answer ? passage(vote.answer) : 'it did not arrive')));
  return [outcome, votes.length > 0 && el('ol', { class: 'votes' }, votes)];
}

/** Why nothing is distilled. */
function without(turn, answers) {
  if (!turn.hints.length) return answers.length ? 'None was kept: none was written, or it did not follow from what was said.' : 'None was kept.';
  return ['followed', 'judged'].includes(turn.fate.state) ? 'Not shown to a teacher yet.'
    : 'Not distilled: there was no room for it, or the teacher says the same without it, or does not answer with it.';
}

function hint(turn) {
  const shown = turn.tokens.teacher?.hint;
  const others = turn.hints.filter((text) => text.text !== shown);
  const answers = turn.hint_answers.filter(Boolean);
  const first = turn.corrected ? 'a person\u2019s words, shown to the teacher ' : 'shown to the teacher ';
  return [
    shown
      ? el('p', { class: 'said' }, el('b', {}, first), shown)
      : el('p', { class: 'note' }, without(turn, answers)),
    others.map((text) => el('p', { class: 'said' }, el('b', {}, turn.corrected ? 'a person\u2019s words ' : 'also kept '), passage(text))),
    answers.length > 0 && el('details', { 'data-key': `${turn.turn}-hints` },
      el('summary', {}, `What the hint writer said (${answers.length})`),
      el('ol', { class: 'votes' }, answers.map((answer) => el('li', {}, el('q', {}, passage(answer)))))),
  ];
}
