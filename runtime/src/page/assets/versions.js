// The versions, what taught each, and the way back to one.

import { el, table, replace, moment, count, signed, plain } from './dom.js';
import { look, order } from './wire.js';

const PAGE = 50;

export const view = {
  title: 'Versions',
  open(main, parameters) {
    const skip = Number(parameters.get('skip')) || 0;
    const wanted = parameters.get('version');
    const told = el('p', { role: 'status', class: 'told', hidden: true });
    const content = el('div', {});
    main.replaceChildren(el('h1', {}, 'Versions'), told, content);
    const path = `/page/versions?limit=${PAGE}&skip=${skip}`;
    const refresh = async (isFirst) => {
      const { body, changed } = await look(path, isFirst);
      if (!changed) return;
      replace(content, list(body, skip, (version) => confirm(main, version, body.current, told, refresh)));
      const row = isFirst && wanted !== null && content.querySelector(`[data-row="${CSS.escape(wanted)}"]`);
      if (row) {
        row.classList.add('wanted');
        row.scrollIntoView({ block: 'center' });
      }
    };
    return refresh;
  },
};

function list(body, skip, rollBack) {
  const columns = [['Version', 'label'], ['State', ''], ['Made', ''], ['Taught by', 'wide'], ['Its replies', 'number'], ['Loss', 'number'], ['KL', 'number'], ['Weights', ''], ['', 'action']];
  const rows = body.versions.map((one) => {
    const isCurrent = one.version === body.current;
    const heard = one.heard;
    return [
      one.version === null ? `withheld, step ${one.step}` : String(one.version),
      [el('span', { class: `badge is-${one.state}` }, one.state), one.version !== null && one.version > 0 && !one.kept && el('span', { class: 'note' }, ' not kept'), one.reason && el('div', { class: 'bad' }, one.reason)],
      one.made_unix_secs ? [moment(one.made_unix_secs * 1000), ` step ${one.step}`] : 'before the run',
      taughtBy(one),
      heard.replies ? `${signed((heard.approved - heard.rejected) / heard.replies)} over ${heard.replies}` : '\u2013',
      plain(one.numbers?.loss ?? null, 4),
      plain(one.numbers?.kl ?? null, 4),
      one.fingerprint ? el('code', { title: one.fingerprint, class: 'print' }, one.fingerprint.slice(0, 8)) : '\u2013',
      one.version === null ? '' : isCurrent ? el('span', { class: 'note' }, 'served now')
        : one.kept ? el('button', { type: 'button', 'aria-label': `Roll back to version ${one.version}`, 'data-key': `back-${one.version}`, onclick: () => rollBack(one.version) }, 'Roll back')
          : '',
    ];
  });
  const shown = skip + body.versions.length;
  return [
    el('p', { class: 'note' }, `Version ${body.current} is served. ${count(body.total, 'version')}, withheld ones and the base included.`),
    table('Versions, the newest first', columns, rows, body.versions.map((one) => one.version)),
    el('nav', { class: 'pages', 'aria-label': 'Pages' },
      skip > 0 && el('a', { href: '#/versions', 'data-key': 'newest' }, 'Newest'),
      shown < body.total && el('a', { href: `#/versions?skip=${shown}`, 'data-key': 'older' }, 'Older versions')),
  ];
}

function taughtBy(one) {
  if (!one.taught) return el('span', { class: 'note' }, one.numbers ? `a batch of ${one.numbers.turns}` : '\u2013');
  return el('details', { 'data-key': `taught-${one.version}` },
    el('summary', {}, count(one.taught, 'turn')),
    el('ul', { class: 'taught' }, one.taught_by.map(({ turn, session }) => el('li', {},
      el('a', { href: `#/session?id=${encodeURIComponent(session)}`, 'data-key': `taught-${turn}` }, session)))),
    one.taught > one.taught_by.length && el('p', { class: 'note' }, `and ${one.taught - one.taught_by.length} more`));
}

/** Asks before it is done: what is served changes for everyone. */
function confirm(main, version, current, told, refresh) {
  const opener = document.activeElement;
  const trouble = el('p', { class: 'bad', role: 'alert' });
  const go = el('button', { type: 'button', class: 'primary', onclick: async () => {
    go.disabled = true;
    trouble.textContent = '';
    try {
      const { message } = await order('/rollback', { version });
      told.hidden = false;
      told.textContent = `Rolled back ${message}.`;
      dialog.close();
      await refresh(true);
    } catch (error) {
      trouble.textContent = error.message;
      go.disabled = false;
    }
  } }, `Roll back to version ${version}`);
  const dialog = el('dialog', { 'aria-labelledby': 'confirm-title', onclose: () => {
    dialog.remove();
    if (opener?.isConnected) opener.focus();
    else main.focus({ preventScroll: true });
  } },
  el('h2', { id: 'confirm-title' }, `Roll back to version ${version}?`),
  el('p', {}, `New replies are drawn by version ${version} from now on instead of version ${current}, and the next step trains from it. Replies under way end as they began. Version ${current} is not deleted. It is written into the audit.`),
  trouble,
  el('div', { class: 'buttons' }, el('button', { type: 'button', autofocus: true, onclick: () => dialog.close() }, 'Cancel'), go));
  document.body.append(dialog);
  dialog.showModal();
}
