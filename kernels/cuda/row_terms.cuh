// The scalar side of a row loss: from the sums of a row and the logits of a few of its tokens to the loss, its
// statistics and the coefficients of its gradient. Warp 0 does it in f64, a token per lane. Comes before row_loss.cu;
// the formulas are those of kernels/src/cpu/loss.

// The codes are those of kernels/src/cuda/ops/row_loss.rs.
enum Token { TOKEN_NONE, TOKEN_CROSS_ENTROPY, TOKEN_PPO, TOKEN_CISPO, TOKEN_GSPO, TOKEN_GIVEN };
enum Kl { KL_NONE, KL_K1, KL_K2, KL_K3, KL_LOW_VAR };
enum Candidates { CANDIDATES_NONE, CANDIDATES_REVERSE_KL, CANDIDATES_POLICY };

// `dual` is 0 where there is none.
struct Clip {
  float low, high, dual;
};

// What is asked of a row. With TOKEN_GIVEN the derivatives are given: by the taken token's log-prob `sign` times
// the row's weight, by the entropy `importance`.
struct Terms {
  Scale scale;
  u32 token, kl, candidates, k;
  Clip clip, candidate_clip;
  float kl_coef, entropy_coef, candidate_coef, candidate_entropy_coef, sign;
};

// Inputs of each row, and of each slot [rows, k]; `old` holds GSPO's ratios, `slot_old` the teacher's log-probs.
struct Inputs {
  const float *weights, *old, *advantages, *importance, *reference, *slot_old, *slot_advantages, *slot_weights;
};

// As RowStat on the host.
struct Stat {
  float loss, logprob, entropy, kl, candidates;
  u32 clip;
};

// A token of a row whose log-prob enters its loss.
struct Entry {
  double value;  // 0, then the derivative of the candidates' loss by its log-prob, then its gradient
  int id;  // -1 where there is none
  float logit;
};

// The gradient at a logit with exponent t is 2^t (a + b t).
struct Dense {
  Frame frame;
  float a, b;
};

struct Term {
  double value, derivative;
  u32 clipped;
};

DEVICE double clamped(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

// A ratio beyond e^88 does not fit an f32; NaN stays NaN.
DEVICE double ratio_of(double logprob, double old) {
  const double d = logprob - old;
  return exp(d > 88.0 ? 88.0 : d);
}

DEVICE Term clipped_policy(double ratio, double advantage, Clip clip) {
  const double free = -ratio * advantage;
  const double bounded = -clamped(ratio, 1.0 - clip.low, 1.0 + clip.high) * advantage;
  Term term = {free, free, 0};
  if (bounded > free) term = {bounded, 0.0, 1};
  if (clip.dual != 0.0f && advantage < 0.0 && term.value > -clip.dual * advantage)
    term = {-clip.dual * advantage, 0.0, 2};
  return term;
}

DEVICE Term weighted_logprob(double logprob, double ratio, double advantage, Clip clip) {
  const double bounded = clamped(ratio, 1.0 - clip.low, 1.0 + clip.high), derivative = -bounded * advantage;
  return {derivative == 0.0 ? 0.0 : derivative * logprob, derivative, bounded == ratio ? 0u : 1u};
}

DEVICE Term token_term(const Terms& terms, const Inputs& inputs, u64 i, double logprob) {
  if (terms.token == TOKEN_NONE) return {0.0, 0.0, 0};
  if (terms.token == TOKEN_CROSS_ENTROPY) return {-logprob, -1.0, 0};
  if (terms.token == TOKEN_GIVEN) return {0.0, (double)terms.sign * inputs.weights[i], 0};
  const double old = inputs.old[i], advantage = inputs.advantages[i];
  const double ratio = terms.token == TOKEN_GSPO ? old : ratio_of(logprob, old);
  Term term = terms.token == TOKEN_CISPO ? weighted_logprob(logprob, ratio, advantage, terms.clip)
                                         : clipped_policy(ratio, advantage, terms.clip);
  if (inputs.importance) {
    term.value *= inputs.importance[i];
    term.derivative *= inputs.importance[i];
  }
  return term;
}

// Value and derivative of the estimate, without its coefficient.
DEVICE Term kl_term(const Terms& terms, const Inputs& inputs, u64 i, double logprob) {
  if (terms.kl == KL_NONE) return {0.0, 0.0, 0};
  const double d = logprob - inputs.reference[i];
  if (terms.kl == KL_K1) return {d, 1.0, 0};
  if (terms.kl == KL_K2) return {0.5 * d * d, d, 0};
  const double power = exp(d < -80.0 ? 80.0 : -d), k3 = power - 1.0 + d;
  if (terms.kl == KL_LOW_VAR && k3 > 10.0) return {10.0, 0.0, 0};
  return {k3, 1.0 - power, 0};
}

// The row's whole distribution; exponents are relative to `top`, so that the largest entry's is exactly 0.
struct Row {
  double top, log2_sum, nats, base2, entropy;
  DEVICE double exponent(float x) const { return x * base2 - top; }
  DEVICE double probability(float x) const { return exp2(exponent(x) - log2_sum); }
  DEVICE double logprob(float x) const { return (exponent(x) - log2_sum) * nats; }
};

// A value of the row and what its loss holds besides.
struct Value {
  double value, beside;
};

// The warp's view of the entries: each lane looks after every 32nd. A lone entry is looked after by all lanes, which
// spares their exchange.
struct Lanes {
  u32 first;
  bool alone;
  DEVICE double sum(double x) const { return alone ? x : warp_sum(x); }
};

#define FOR_EACH_ENTRY(e, lanes, end) for (u32 e = (lanes).first; e < (end); e += 32)

// The clipped policy loss of the candidates; sets their derivatives.
DEVICE Value candidates_policy(const Terms& terms, const Inputs& inputs, u64 i, Entry* entries, Lanes lanes,
                               const Row& row) {
  double value = 0.0;
  FOR_EACH_ENTRY(e, lanes, terms.k) {
    if (entries[e].id < 0) continue;
    const u64 slot = i * terms.k + e;
    const double weight = inputs.slot_weights[slot];
    const double ratio = ratio_of(row.logprob(entries[e].logit), inputs.slot_old[slot]);
    const Term term = clipped_policy(ratio, inputs.slot_advantages[slot], terms.candidate_clip);
    value += weight * term.value;
    entries[e].value = terms.candidate_coef * weight * term.derivative;
  }
  return {lanes.sum(value), 0.0};
}

// The largest log of the candidates' mass that leaves the tail a gradient.
#define LOG_MASS_LIMIT -1e-7

// KL(student | teacher) over the candidates and a bin of all other tokens, which holds `tail`; sets the derivatives.
// The tail is a sum over the other tokens, not 1 minus the candidates: it keeps its digits when it is tiny.
DEVICE Value candidates_reverse_kl(const Terms& terms, const Inputs& inputs, u64 i, Entry* entries, Lanes lanes,
                                   const Row& row, double tail) {
  double mass = 0.0;
  FOR_EACH_ENTRY(e, lanes, terms.k)
    if (entries[e].id >= 0) mass += exp((double)inputs.slot_old[i * terms.k + e]);
  const double log_teacher_tail = log(-expm1(fmin(log(lanes.sum(mass)), LOG_MASS_LIMIT)));
  const double smallest = -expm1(LOG_MASS_LIMIT);
  const bool open = tail > smallest || tail != tail;
  if (!open) tail = smallest;
  const double log_tail = log(tail), coef = terms.candidate_coef;
  const double entropy_coef = coef * terms.candidate_entropy_coef;
  double kl = 0.0, entropy = 0.0;
  FOR_EACH_ENTRY(e, lanes, terms.k) {
    if (entries[e].id < 0) continue;
    const double logprob = row.logprob(entries[e].logit), p = row.probability(entries[e].logit);
    if (p == 0.0) continue;
    const double difference = logprob - inputs.slot_old[i * terms.k + e];
    kl += p * difference;
    entropy -= p * logprob;
    // A candidate's mass comes out of the tail, unless the tail is held at its limit.
    const double by_kl = open ? difference - (log_tail - log_teacher_tail) : difference + 1.0;
    const double by_entropy = open ? log_tail - logprob : -logprob - 1.0;
    entries[e].value = p * (coef * by_kl - entropy_coef * by_entropy);
  }
  kl = lanes.sum(kl) + tail * (log_tail - log_teacher_tail);
  entropy = lanes.sum(entropy) - tail * log_tail;
  return {kl, -entropy_coef * entropy};
}

// What a row comes to.
struct Outcome {
  Stat stat;
  Dense dense;
  bool live;  // whether any of the gradient differs from 0
};

// Called by the whole warp 0, with the softmax of the row without its entries, the entries' logits filled in and
// their values 0. The first `k` entries are candidates by slot, the last is the taken token unless `taken` says that
// it is one of them. Leaves the entries' gradients in their values.
DEVICE Outcome row_terms(const Terms& terms, const Inputs& inputs, u64 i, Softmax rest, Entry* entries, u32 taken) {
  const u32 k = terms.k, count = k + 1;
  const Lanes lanes = {k ? lane_index() : 0, k == 0};
  const bool has_rest = rest.plain != 0.0f;
  const double base2 = terms.scale.base2, origin = rest.frame.shift * base2 + rest.frame.offset;

  double top = has_rest ? origin : (double)NEGATIVE_INFINITY;
  FOR_EACH_ENTRY(e, lanes, count)
    if (entries[e].id >= 0) top = fmax(top, entries[e].logit * base2);
  if (!lanes.alone)
    for (int offset = 16; offset; offset >>= 1) top = fmax(top, __shfl_xor_sync(ALL_LANES, top, offset));
  double sum = 0.0, weighted = 0.0;
  FOR_EACH_ENTRY(e, lanes, count) {
    if (entries[e].id < 0 || entries[e].logit == NEGATIVE_INFINITY) continue;
    const double t = entries[e].logit * base2 - top, power = exp2(t);
    sum += power;
    weighted += t * power;
  }
  sum = lanes.sum(sum);
  weighted = lanes.sum(weighted);
  const double moved = origin - top, scale = exp2(moved);
  if (has_rest) {
    sum += scale * rest.plain;
    weighted += scale * (rest.weighted + moved * rest.plain);
  }
  const double log2_sum = log2(sum), spread = (log2_sum - weighted / sum) * terms.scale.nats;
  const Row row = {top, log2_sum, terms.scale.nats, base2, spread < 0.0 ? 0.0 : spread};

  Outcome outcome;
  const float taken_logit = entries[taken].logit;
  const double logprob = row.logprob(taken_logit);
  double total = -terms.entropy_coef * row.entropy;
  Value candidates = {0.0, 0.0};
  if (terms.candidates == CANDIDATES_POLICY) {
    candidates = candidates_policy(terms, inputs, i, entries, lanes, row);
  } else if (terms.candidates == CANDIDATES_REVERSE_KL) {
    double tail = has_rest ? scale * rest.plain / sum : 0.0;
    if (taken == k) tail += row.probability(taken_logit);
    candidates = candidates_reverse_kl(terms, inputs, i, entries, lanes, row, tail);
  }
  const Term token = token_term(terms, inputs, i, logprob), kl = kl_term(terms, inputs, i, logprob);
  total += terms.candidate_coef * candidates.value + candidates.beside + token.value + terms.kl_coef * kl.value;
  outcome.stat = {(float)total,    (float)logprob,          (float)row.entropy,
                  (float)kl.value, (float)candidates.value, token.clipped};

  const bool given = terms.token == TOKEN_GIVEN;
  const double weight = given ? 1.0 : inputs.weights[i];
  double by_entropy = weight * terms.entropy_coef;
  if (given) by_entropy = inputs.importance ? -(double)inputs.importance[i] : 0.0;
  const double by_taken = token.derivative + terms.kl_coef * kl.derivative;
  const auto derivative = [&](u32 e) { return (e < k ? entries[e].value : 0.0) + (e == taken ? by_taken : 0.0); };
  double derivatives = 0.0;
  bool any = false;
  FOR_EACH_ENTRY(e, lanes, count) {
    derivatives += derivative(e);
    any = any || !(derivative(e) == 0.0);
  }
  outcome.live = !(by_entropy == 0.0) || __any_sync(ALL_LANES, any);
  const double u = weight * lanes.sum(derivatives);
  FOR_EACH_ENTRY(e, lanes, count) {
    if (entries[e].id < 0) continue;
    const float x = entries[e].logit;
    const double p = row.probability(x), own = weight * derivative(e);
    const double entropy = by_entropy == 0.0 || p == 0.0 ? 0.0 : by_entropy * (row.logprob(x) + row.entropy);
    entries[e].value = (own - p * (u - entropy)) * terms.scale.inverse_temperature;
  }
  const double factor = terms.scale.inverse_temperature * scale / sum;
  const double constant = by_entropy == 0.0 ? 0.0 : by_entropy * (row.entropy + (moved - log2_sum) * terms.scale.nats);
  outcome.dense = {rest.frame, (float)((constant - u) * factor), (float)(by_entropy * terms.scale.nats * factor)};
  return outcome;
}
