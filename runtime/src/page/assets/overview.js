// What the page opens on: whether it gets better, in a sentence, with what that rests on; then the latest conversations.

import { el, replace, count, passage, reply, verdict } from './dom.js';
import { look, order } from './wire.js';
import { chart, rolling, FEW, WINDOW } from './chart.js';
import { sessionLink, sessionTable } from './sessions.js';
import { stateLegend } from './states.js';

const SESSIONS = 10;
const NEEDED = 10;

/** The answer, and the numbers behind it. */
function answer({ trend, judged, before, after }) {
  const compared = `The first replies of the latest ${after.of} conversations: ${after.approved} of ${after.of} approved. Of the first ${before.of} it was ${before.approved}.`;
  if (trend === 'better') return ['It is getting better.', compared];
  if (trend === 'worse') return ['It is getting worse.', compared];
  if (trend === 'not_yet') return ['Not better yet: what changed may be chance.', compared];
  return ['Too little to say whether it gets better.', judged
    ? `${count(judged, 'conversation')} had a first reply that was judged; ${NEEDED} are needed.`
    : 'No conversation has had its first reply judged yet.'];
}

/** What people said themselves, beside what the judge made of the same. */
function ratings({ rated, good, judged, agreed }) {
  if (!rated) {
    return el('p', { class: 'note' }, 'You have rated no reply. Open a conversation and say whether a reply was good: that counts over what the judge says, and shows here whether the two agree.');
  }
  const read = judged === 0 ? 'The judge was not asked about them: the rating is the verdict.'
    : judged === rated ? `The judge agrees with ${agreed}.`
      : `The judge read ${judged} of them too, and agrees with ${agreed}.`;
  return [
    el('p', {}, el('b', {}, `You rated ${good} of ${rated} good.`), ' ', read),
    judged > 0 && judged < FEW && el('p', { class: 'note' }, `Fewer than ${FEW} say little about the judge.`),
  ];
}

function example(heading, one) {
  return el('article', {},
    el('h3', {}, `${heading}: version ${one.version}`),
    el('p', { class: 'said asked' }, el('b', {}, 'user '), passage(one.asked)),
    reply(one.reply, `pair-${heading}`, 'reply'),
    el('p', {}, verdict(one.reward), one.rated ? ' by a person\u2019s rating ' : ' by the judge ', '\u00b7 ', sessionLink(one.session, 'the conversation', `pair-${heading}`)));
}

function pair(shown) {
  if (!shown) return null;
  const { before, after } = shown;
  return el('section', { class: 'example' },
    el('h2', {}, shown.same_question ? 'The same question, before and after' : 'The first conversation, and the latest'),
    !shown.same_question && el('p', { class: 'note' }, 'No question was asked twice yet, so these are two different ones. ',
      el('a', { href: `#/compare?turn=${encodeURIComponent(after.turn)}&old=${before.version}&new=${after.version}`, 'data-key': 'pair-compare' }, 'Ask both versions the latest one')),
    el('div', { class: 'replies' }, example('Before', before), example('After', after)));
}

/** What people wished for and what therefore stands, each with a way to end that. `seen` looks again. */
function wishes(standing, seen) {
  if (!standing.length) return null;
  const told = el('p', { role: 'status', class: 'note' });
  const forget = ({ wish }) => async () => {
    try {
      await order('/wish/forget', { wish });
      await seen();
    } catch (error) {
      told.className = 'bad';
      told.textContent = error.message;
    }
  };
  const line = (one) => el('li', {}, passage({ text: one.text, chars: [...one.text].length }), ' ',
    el('button', { type: 'button', 'data-key': `wish-${one.wish}`, 'aria-label': `Forget: ${one.text}`, onclick: forget(one) }, 'Forget'));
  return el('section', { class: 'wishes' },
    el('h2', {}, 'Wishes that stand'),
    el('p', { class: 'note' }, 'What was explicitly wished for. The teacher is shown it with every reply of whoever wished it, until it is forgotten here or said otherwise.'),
    el('ul', {}, standing.map(line)), told);
}

export const view = {
  title: 'Overview',
  open(main) {
    let stood = '';
    const see = async (isFirst) => {
      const [shown, recent, wished] = await Promise.all([look('/page/overview', isFirst), look(`/page/sessions?limit=${SESSIONS}`, isFirst), look('/wishes', isFirst)]);
      const stands = JSON.stringify(wished.body);
      if (!shown.changed && !recent.changed && stands === stood) return;
      stood = stands;
      const { body } = shown;
      const [sentence, numbers] = answer(body.answer);
      const points = rolling(body.replies.map((reply) => (reply.approved ? 1 : 0))).map(({ y, n, few }, place) => ({
        x: place + 1,
        y,
        few,
        words: `conversation ${place + 1}, version ${body.replies[place].version}: ${Math.round(y * n)} of the last ${n} approved`,
      }));
      const { sessions, next, totals } = recent.body;
      replace(main,
        el('h1', {}, sentence),
        el('p', { class: 'answer' }, numbers),
        el('div', { class: 'evidence' },
          chart({ key: 'satisfied', title: 'By the verdicts', unit: `share of first replies approved, over the last ${WINDOW}`, xName: 'conversation', points, low: 0, high: 1 }),
          el('section', { class: 'own' }, el('h2', {}, 'By your own ratings'), ratings(body.ratings),
            el('p', { class: 'note' }, 'The judge\u2019s verdicts are also what it learns from, so they can rise without anybody being happier. ',
              el('a', { href: '#/learning', 'data-key': 'learning' }, 'All curves')))),
        pair(body.pair),
        wishes(wished.body, () => see(true)),
        sessions.length
          ? [sessionTable('The latest conversations', sessions), stateLegend()]
          : el('p', {}, 'Nobody has talked to the policy yet. Point a client at the gateway, or type ', el('code', {}, 'openclaw-rl chat'), '.'),
        next !== null && el('p', {}, el('a', { href: '#/sessions', 'data-key': 'all' }, `All ${count(totals.sessions, 'session')}`)));
    };
    return see;
  },
};
