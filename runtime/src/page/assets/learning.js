// Whether it learns, in full: how its replies were received and what its steps did.

import { el, table, replace, signed, plain, count } from './dom.js';
import { look } from './wire.js';
import { chart, rolling, FEW, WINDOW } from './chart.js';

/** How many of how many; a share only where it says something. */
function share(approved, of) {
  const counted = `${approved} of ${of}`;
  return of < FEW ? el('span', { class: 'note' }, counted) : `${counted}, ${Math.round((100 * approved) / of)} %`;
}

const mean = (heard) => signed((heard.approved - heard.rejected) / heard.replies);

export const view = {
  title: 'Learning',
  open(main) {
    return async (isFirst) => {
      const { body, changed } = await look('/page/learning', isFirst);
      if (!changed) return;
      const judged = body.replies.filter((reply) => reply.reward !== null);
      const rewards = judged.map((reply) => reply.reward);
      const firsts = judged.filter((reply) => reply.first);
      const line = (replies, values, name) => rolling(values).map(({ y, n, few }, place) => ({
        x: place + 1,
        y,
        few,
        words: `${name} ${place + 1}, drawn by version ${replies[place].version}: ${y.toFixed(2)} over ${n}`,
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
      const columns = [['Version', 'label'], ['Judged replies', 'number'], ['Approved', 'number'], ['Rejected', 'number'], ['Mean reward', 'number'], ['First replies approved', 'number']];
      const rows = body.versions.toReversed().map((heard) => [
        el('a', { href: `#/versions?version=${heard.version}`, 'data-key': `version-${heard.version}` }, String(heard.version)),
        String(heard.replies), String(heard.approved), String(heard.rejected),
        heard.replies < FEW ? el('span', { class: 'note' }, mean(heard)) : mean(heard),
        heard.first ? [share(heard.first_approved, heard.first)] : '\u2013',
      ]);
      replace(main,
        el('h1', {}, 'Learning'),
        el('p', { class: 'note' }, `By the verdicts of the judge, or of a person where one rated a reply. Hollow points are means of fewer than ${FEW}.`),
        el('div', { class: 'charts' },
          chart({ key: 'reward', title: 'Reward', unit: `mean of the last ${WINDOW} judged replies, from \u22121 to +1`, xName: 'reply', points: line(judged, rewards, 'reply'), low: -1, high: 1 }),
          chart({ key: 'satisfied', title: 'Satisfied first replies', unit: `share approved of the last ${WINDOW} conversations\u2019 first replies`, xName: 'conversation', points: line(firsts, satisfied, 'conversation'), low: 0, high: 1 }),
          chart({ key: 'loss', title: 'Loss', unit: 'of each step; a cross: withheld', xName: 'step', size: 'small', points: losses(false), marks: losses(true) })),
        body.versions.length > 0 && table('How each version\u2019s replies were received', columns, rows),
        el('p', { class: 'note' },
          `From the latest ${body.most_replies.toLocaleString()} judged replies and ${body.most_steps.toLocaleString()} steps. Turns that the judge could not read are left out of the lines. A policy-gradient loss need not fall while the policy gets better: the reward is what to look at.`));
    };
  },
};
