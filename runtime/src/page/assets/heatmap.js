// The teacher-student gap over a reply's tokens. Colour says which way and how far, the underline says which way without
// colour, and the line below says it exactly for the token under the pointer or the keyboard.

import { el, signed, plain } from './dom.js';

/** Where one shade ends and the next begins, in nats. */
const EDGES = [0.05, 0.25, 1, 2, 4];

function shade(gap) {
  if (gap === null) return 'none';
  const level = EDGES.filter((edge) => Math.abs(gap) >= edge).length;
  if (level === 0) return '0';
  return (gap < 0 ? 'n' : 'p') + level;
}

function gapAt(taught, place) {
  const [teacher, student] = [taught.teacher[place], taught.student[place]];
  return teacher === null || student === null ? null : teacher - student;
}

/** Makes what cannot be seen visible. */
function visible(text) {
  if (text === '') return '\u22ef';
  return text.replaceAll('\n', '\u21b5\n').replaceAll('\t', '\u21e5');
}

function quoted(text) {
  return `\u201c${text.replaceAll('\n', '\u21b5')}\u201d`;
}

/** The scale, once per page. */
export function legend() {
  const swatch = (name, words) => el('li', {}, el('span', { class: `token shade-${name}`, 'aria-hidden': 'true' }, '\u2003'), ' ', words);
  return el('details', { class: 'legend', 'data-key': 'legend' },
    el('summary', {}, 'What the colours say'),
    el('p', {}, 'The gap of a token is what the teacher, who was shown the hint, makes of it minus what the student makes of it, in nats: how much the hint pulls towards it or away.'),
    el('ul', { class: 'scale' },
      swatch('n5', '\u2212 4 or less'), swatch('n4', '\u2212 2'), swatch('n3', '\u2212 1'), swatch('n2', '\u2212 0.25'), swatch('n1', '\u2212 0.05'),
      swatch('0', 'no difference'),
      swatch('p1', '+ 0.05'), swatch('p2', '+ 0.25'), swatch('p3', '+ 1'), swatch('p4', '+ 2'), swatch('p5', '+ 4 or more')),
    el('p', {}, 'Solid underline: the teacher wants it more. Dotted: less. Slanted: what was thought, which its reader is not told. Tab into a reply, then the arrow keys go from token to token.'));
}

function exact(tokens, taught, place) {
  const wanted = taught.wanted[place];
  return [
    el('b', {}, quoted(tokens.text[place])),
    ` gap ${signed(gapAt(taught, place), 2)}`,
    ` \u00b7 teacher ${plain(taught.teacher[place], 2)}`,
    ` \u00b7 student ${plain(taught.student[place], 2)}`,
    ` \u00b7 as drawn ${plain(tokens.rollout[place], 2)}`,
    wanted && wanted[0] !== tokens.text[place] ? ` \u00b7 teacher\u2019s first choice ${quoted(wanted[0])} ${plain(wanted[1], 2)}` : '',
  ];
}

function asTable(tokens, taught) {
  return el('table', { class: 'tokens' },
    el('caption', {}, 'Token by token, in nats'),
    el('thead', {}, el('tr', {}, ['Token', 'Gap', 'Teacher', 'Student', 'As drawn', 'Teacher\u2019s first choice']
      .map((heading) => el('th', { scope: 'col' }, heading)))),
    el('tbody', {}, tokens.text.map((text, place) => el('tr', {},
      el('th', { scope: 'row' }, quoted(text)),
      el('td', {}, signed(gapAt(taught, place), 2)),
      el('td', {}, plain(taught.teacher[place], 2)),
      el('td', {}, plain(taught.student[place], 2)),
      el('td', {}, plain(tokens.rollout[place], 2)),
      el('td', {}, taught.wanted[place] ? `${quoted(taught.wanted[place][0])} ${plain(taught.wanted[place][1], 2)}` : '\u2013')))));
}

/** The reply of a turn over which a teacher's gap is known. */
export function heatmap(turn, tokens, showAll) {
  const taught = tokens.teacher;
  const readout = el('p', { class: 'readout' }, `mean gap ${signed(taught.mean_gap, 2)} nats over ${tokens.total} tokens; point at a token for its own`);
  const spans = tokens.text.map((text, place) => el('span', {
    class: `token shade-${shade(gapAt(taught, place))}${place < tokens.thinking ? ' thought' : ''}`,
    role: 'option',
    'aria-selected': 'false',
    'aria-label': `${quoted(text)}${place < tokens.thinking ? ', thought' : ''}, gap ${signed(gapAt(taught, place), 2)}`,
    tabindex: place === 0 ? 0 : -1,
    'data-place': place,
    'data-key': `${turn}-${place}`,
  }, visible(text)));
  const tell = (place) => readout.replaceChildren(...exact(tokens, taught, place));
  const select = (target) => {
    for (const span of spans) {
      const isIt = span === target;
      if (isIt || span.tabIndex === 0) {
        span.tabIndex = isIt ? 0 : -1;
        span.setAttribute('aria-selected', String(isIt));
      }
    }
    tell(Number(target.dataset.place));
  };
  const of = (event) => event.target.closest('.token');
  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  const list = el('div', {
    class: 'heatmap',
    role: 'listbox',
    'aria-label': 'Reply, token by token',
    'aria-orientation': 'horizontal',
    onpointerover: (event) => { if (of(event)) tell(Number(of(event).dataset.place)); },
    onpointerout: () => {
      const chosen = spans.find((span) => span.getAttribute('aria-selected') === 'true');
      if (chosen) tell(Number(chosen.dataset.place));
    },
    onfocusin: (event) => { if (of(event)) select(of(event)); },
    onclick: (event) => of(event)?.focus(),
    onkeydown: (event) => {
      const move = moves[event.key];
      if (move === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const place = Number(document.activeElement.dataset.place ?? 0) + move;
      spans[Math.max(0, Math.min(spans.length - 1, place))].focus();
    },
  }, spans);
  const details = el('details', { 'data-key': `${turn}-table`, ontoggle: () => {
    if (details.open && details.childElementCount === 1) details.append(el('div', { class: 'scroll' }, asTable(tokens, taught)));
  } }, el('summary', {}, 'As a table'));
  return [
    list,
    readout,
    tokens.text.length < tokens.total && el('p', { class: 'note' },
      `The first ${tokens.text.length} of ${tokens.total} tokens. `,
      showAll && el('button', { type: 'button', onclick: showAll }, 'Show more')),
    details,
  ];
}
