// Tells an openclaw-rl gateway what OpenClaw knows and a request does not say: X-Session-Id on every request of the
// provider `openclaw-rl`, X-Turn-Type (main: the conversation; side: OpenClaw's own housekeeping), and the end of a
// session. It reads no message, so it needs no access to conversations; what it cannot know it leaves to the gateway,
// which reads the traffic; and nothing that fails here reaches a turn.

const PROVIDER = "openclaw-rl";

/** Parts of a session key that stand for runs beside the conversation. */
const SIDE_KEYS = [":internal-session-effects:", ":cron:", ":subagent:"];
/** Behind a shutdown, a restart or a compaction the same conversation goes on. */
const ENDINGS = ["new", "reset", "idle", "daily", "deleted"];
/** The hook that describes a model call comes a moment later than the call. */
const CALL_WAIT_MS = 200;
/** Turns of a session wait this long for the end of the conversation before it. */
const END_WAIT_MS = 3000;
/** A gateway that takes longer to hear of an end is left to its idle timeout. */
const END_TIMEOUT_MS = 15_000;
/** Calls and runs remembered; the oldest are forgotten. */
const MOST_KEPT = 1000;

/** Runs whose prompt is a heartbeat. */
const heartbeats = new Set();
/** Model calls that have begun, by id; each is asked for once. */
const calls = new Map();
/** Those who wait for a call, by its id. */
const waiting = new Map();
/** Ends under way, by session. */
const endings = new Map();
let config;

function trim(kept) {
  for (const oldest of kept.keys()) {
    if (kept.size <= MOST_KEPT) return;
    kept.delete(oldest);
  }
}

/** Waits for `promise`, but not for long. */
function within(milliseconds, promise) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, milliseconds)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function callStarted(event) {
  if (event.provider !== PROVIDER) return;
  calls.set(event.callId, event);
  trim(calls);
  waiting.get(event.callId)?.();
}

/** The call as the hook describes it; undefined where no hook does. */
async function describe(callId) {
  if (!callId) return undefined;
  if (!calls.has(callId)) {
    const told = new Promise((resolve) => waiting.set(callId, resolve));
    await within(CALL_WAIT_MS, told);
    waiting.delete(callId);
  }
  const call = calls.get(callId);
  calls.delete(callId);
  return call;
}

/** `auto` asks the gateway to find out. */
function turnType(call) {
  if (!call?.sessionKey) return "auto";
  const beside = heartbeats.has(call.runId) || call.runId?.includes(":compaction:");
  return beside || SIDE_KEYS.some((part) => call.sessionKey.includes(part)) ? "side" : "main";
}

async function turnHeaders(options) {
  try {
    const call = await describe(options?.requestId);
    // A reset conversation keeps its session's id: its first turn must not overtake the end of the last.
    await within(END_WAIT_MS, endings.get(call?.sessionId));
    return { "X-Turn-Type": turnType(call) };
  } catch {
    return { "X-Turn-Type": "auto" };
  }
}

function gatewayUrl() {
  return config?.models?.providers?.[PROVIDER]?.baseUrl;
}

async function apiKey(runtime) {
  try {
    const auth = await runtime.modelAuth.resolveApiKeyForProvider({ provider: PROVIDER, cfg: config });
    return auth?.apiKey;
  } catch {
    return undefined;
  }
}

async function postEnd(sessionId, runtime) {
  const signal = AbortSignal.timeout(END_TIMEOUT_MS);
  const key = await apiKey(runtime);
  const response = await fetch(`${gatewayUrl().replace(/\/+$/, "")}/sessions/end`, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      "X-Session-Id": sessionId,
      ...(key ? { Authorization: `Bearer ${key}` } : {}),
    },
    body: "{}",
    signal,
  });
  await response.body?.cancel();
  if (!response.ok) throw new Error(`the gateway answered ${response.status}`);
}

async function sessionEnded(event, { logger, runtime }) {
  if (!event.sessionId || !ENDINGS.includes(event.reason) || !gatewayUrl()) return;
  const ending = postEnd(event.sessionId, runtime).catch((error) => {
    logger.warn(`openclaw-rl: the gateway was not told that a session ended: ${error.message}`);
  });
  endings.set(event.sessionId, ending);
  await ending;
  if (endings.get(event.sessionId) === ending) endings.delete(event.sessionId);
}

function provider() {
  return {
    id: PROVIDER,
    label: "openclaw-rl",
    auth: [],
    // Every request passes here: titles, side questions and summaries too.
    resolveTransportTurnState: ({ sessionId }) => ({
      headers: { ...(sessionId ? { "X-Session-Id": sessionId } : {}), "X-Turn-Type": "side" },
    }),
    // Only the calls of agents' runs pass here; what they say goes over the above.
    wrapStreamFn(context) {
      config = context.config ?? config;
      const stream = context.streamFn;
      if (!stream) return undefined;
      return async (model, prompt, options) => {
        const headers = await turnHeaders(options);
        return stream(model, prompt, { ...options, headers: { ...options?.headers, ...headers } });
      };
    },
  };
}

export default {
  id: "openclaw-rl",
  name: "openclaw-rl",
  register(api) {
    config = api.config ?? config;
    api.registerProvider(provider());
    api.on("model_call_started", callStarted);
    api.on("heartbeat_prompt_contribution", (_event, run) => {
      if (run?.runId) heartbeats.add(run.runId);
      trim(heartbeats);
    });
    api.on("session_end", (event) => sessionEnded(event, api));
    if (api.registrationMode !== "full") return;
    const url = gatewayUrl();
    if (url) api.logger.info(`openclaw-rl ${api.version}: sessions, turn types and ends are told to ${url}`);
    else api.logger.warn(`openclaw-rl ${api.version}: models.providers.${PROVIDER}.baseUrl names no gateway`);
  },
};
