// Speaks to this port, and to nothing else: the token, looks that cost nothing while nothing has moved, and orders.

const KEY = 'openclaw-rl.token';
const known = new Map();
const KNOWN_ANSWERS = 32;

export class NotAdmitted extends Error {}
export class Refused extends Error {}
export class Away extends Error {}

/** Takes a token out of the address, so that it stays in no history, and keeps it for this tab. */
export function admitFromAddress() {
  const found = /^#token=([0-9a-f]+)$/i.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, found[1]);
  history.replaceState(null, '', location.pathname + '#/overview');
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;
export const admit = (token) => sessionStorage.setItem(KEY, token);

export function leave() {
  sessionStorage.removeItem(KEY);
  known.clear();
  images.forEach((address) => URL.revokeObjectURL(address));
  images.clear();
}

async function ask(path, options) {
  const token = sessionStorage.getItem(KEY) ?? '';
  // A header holds visible ASCII alone; what is not cannot be the token.
  if (!/^[\x21-\x7e]+$/.test(token)) throw new NotAdmitted('no token');
  const headers = { authorization: `Bearer ${token}`, ...options.headers };
  const asked = fetch(path, { ...options, headers, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  const response = await asked.catch(() => { throw new Away('The run does not answer: nothing was done.'); });
  if (response.status === 401) throw new NotAdmitted('the token is not this run\u2019s');
  if (response.status === 304) return { response, body: undefined };
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(body.error?.message ?? `it answered ${response.status}`);
  return { response, body };
}

/** What a path shows now. `changed` is false when it is what the last look showed. */
export async function look(path, isFirst = false) {
  const last = known.get(path);
  const headers = last ? { 'if-none-match': last.mark } : {};
  const { response, body } = await ask(path, { headers });
  if (body === undefined) return { body: last.body, changed: isFirst };
  const mark = response.headers.get('etag');
  if (mark) {
    known.delete(path);
    known.set(path, { mark, body });
    if (known.size > KNOWN_ANSWERS) known.delete(known.keys().next().value);
  }
  return { body, changed: true };
}

const images = new Map();
const KNOWN_IMAGES = 64;

/** An address under which the browser has an image of this port. */
export async function image(name) {
  const found = images.get(name);
  if (found) return found;
  const token = sessionStorage.getItem(KEY) ?? '';
  const response = await fetch(`/page/image?sha256=${encodeURIComponent(name)}`,
    { headers: { authorization: `Bearer ${token}` }, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  if (!response.ok) throw new Refused(`it answered ${response.status}`);
  const address = URL.createObjectURL(await response.blob());
  images.set(name, address);
  if (images.size > KNOWN_IMAGES) {
    const [oldest, old] = images.entries().next().value;
    images.delete(oldest);
    URL.revokeObjectURL(old);
  }
  return address;
}

/** Has something done; returns what was answered. */
export async function order(path, body) {
  const options = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  return (await ask(path, options)).body;
}
