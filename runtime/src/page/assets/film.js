// The film of an episode: what the screen showed behind each step, with the place that the step pointed at.

import { el, svg, signed, passage } from './dom.js';
import { image } from './wire.js';

const FRAME_MS = 900;

/** A player of frames. `show(frames)` takes further ones; what is looked at stays. */
export function player() {
  const picture = el('img', { alt: '' });
  const mark = svg('svg', { class: 'pointed', viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  const told = el('figcaption', { 'aria-live': 'polite' });
  const range = el('input', { type: 'range', min: 0, step: 1, 'aria-label': 'Step', oninput: () => turnTo(Number(range.value)) });
  const play = el('button', { type: 'button', onclick: () => (timer ? stop() : start()) }, 'Play');
  const back = el('button', { type: 'button', onclick: () => turnTo(at - 1) }, 'Back');
  const on = el('button', { type: 'button', onclick: () => turnTo(at + 1) }, 'On');
  const film = el('figure', { class: 'film', hidden: true });
  const parts = [el('div', { class: 'screen' }, picture, mark), told, el('div', { class: 'buttons' }, back, play, on, range)];
  let frames = [];
  let at = 0;
  let timer = null;

  async function turnTo(wanted) {
    at = Math.max(0, Math.min(frames.length - 1, wanted));
    const frame = frames[at];
    if (!frame) return;
    range.value = at;
    back.disabled = at === 0;
    on.disabled = at === frames.length - 1;
    picture.alt = `The screen after step ${frame.step}`;
    const source = await image(frame.image).catch(() => null);
    // Another was asked for meanwhile.
    if (frames[at] !== frame) return;
    picture.hidden = source === null;
    if (source) picture.src = source;
    mark.replaceChildren();
    if (frame.point) {
      const [x, y] = frame.point.map((part) => part * 100);
      const across = 3;
      // The drawing is stretched over the screen: an ellipse that is a circle there.
      const ratio = frame.width / frame.height;
      mark.append(svg('ellipse', { cx: x, cy: y, rx: across, ry: across * ratio }), svg('ellipse', { class: 'dot', cx: x, cy: y, rx: 0.5, ry: 0.5 * ratio }));
    }
    const verdict = frame.score === null ? null : [' ', el('span', { class: frame.score > 0 ? 'good' : 'bad' }, signed(frame.score, 0)), frame.reason && [' ', passage(frame.reason)]];
    told.replaceChildren(...[
      frame.step === 0 ? 'At the beginning' : `After step ${frame.step}`, ` (${at + 1} of ${frames.length})`,
      source === null && ': the image has made room for others', verdict,
    ].flat(Infinity).filter(Boolean));
  }

  function start() {
    if (at === frames.length - 1) turnTo(0);
    play.textContent = 'Stop';
    timer = setInterval(() => {
      if (!film.isConnected || at === frames.length - 1) stop();
      else turnTo(at + 1);
    }, FRAME_MS);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = 'Play';
  }

  return {
    film,
    show(now) {
      const isFirst = frames.length === 0;
      const follows = at === frames.length - 1;
      frames = now;
      film.hidden = frames.length === 0;
      // An episode without a screen has no picture at all.
      if (frames.length && !film.firstChild) film.append(...parts);
      range.max = Math.max(0, frames.length - 1);
      // Of an episode that goes on, the newest is shown to whoever looks at the newest.
      if (frames.length) turnTo(isFirst ? 0 : follows && !timer ? frames.length - 1 : at);
    },
  };
}
