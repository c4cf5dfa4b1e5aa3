// The scalar side of a row loss: from the sums of a row and the logits of a few of its tokens to the loss,
// its statistics and the coefficients of its gradient. Warp 0 does it: in f32 for the taken token alone,
// where nothing cancels, and in f64 with candidates, a token per lane. Comes before row_loss.cu; the formulas
// are those of kernels/src/cpu/loss.
//
//   CANDIDATES   rows may have candidates besides the taken token

// The codes are those of kernels/src/cuda/ops/row_loss.rs.
enum Token { TOKEN_NONE, TOKEN_CROSS_ENTROPY, TOKEN_PPO, TOKEN_CISPO, TOKEN_GSPO, TOKEN_GIVEN };
enum Kl { KL_NONE, KL_K1, KL_K2, KL_K3, KL_LOW_VAR };
enum CandidateLoss { CANDIDATES_NONE, CANDIDATES_REVERSE_KL, CANDIDATES_POLICY };

// `dual` is 0 where there is none.
struct Clip {
  float low, high, dual;
};

// What is asked of a row. With TOKEN_GIVEN the derivatives are given: by the taken token's log-prob `sign`
// times the row's weight, by the entropy `importance`.
struct Terms {
  Scale scale;
  u32 token, kl, candidates, k;
  Clip clip, candidate_clip;
  float kl_coef, entropy_coef, candidate_coef, candidate_entropy_coef, sign;
};

// Inputs of each row, and of each slot [rows, k]; `old` holds GSPO's ratios, `slot_old` the teacher's
// log-probs.
struct Inputs {
  const float *weights, *old, *advantages, *importance, *reference, *slot_old, *slot_advantages,
      *slot_weights;
};

// As RowStat on the host.
struct Stat {
  float loss, logprob, entropy, kl, candidates;
  u32 clip;
};

// A token of a row whose log-prob enters its loss.
struct Entry {
  double value;  // 0, then the derivative of the candidates' loss by its log-prob, then its gradient
  int id;        // -1 where there is none
  float logit;
};

// The gradient at a logit with exponent t is 2^t (a + b t).
struct Dense {
  Frame frame;
  float a, b;
};

// A term of the loss. Real: float or double.
template <class Real>
struct Term {
  Real value, derivative;
  u32 clipped;
};

DEVICE float exponential(float x) { return expf(x); }
DEVICE double exponential(double x) { return exp(x); }
DEVICE float exponential_minus_1(float x) { return expm1f(x); }
DEVICE double exponential_minus_1(double x) { return expm1(x); }

// NaN stays NaN.
template <class Real>
DEVICE Real clamped(Real x, Real low, Real high) {
  return x < low ? low : x > high ? high : x;
}

// A ratio beyond e^88 does not fit an f32; NaN stays NaN.
template <class Real>
DEVICE Real ratio_of(Real logprob, Real old) {
  const Real d = logprob - old;
  return exponential(d > Real(88) ? Real(88) : d);
}

template <class Real>
DEVICE Term<Real> clipped_policy(Real ratio, Real advantage, Clip clip) {
  const Real free = -ratio * advantage;
  const Real bounded = -clamped(ratio, Real(1) - Real(clip.low), Real(1) + Real(clip.high)) * advantage;
  Term<Real> term = {free, free, 0};
  if (bounded > free) term = {bounded, Real(0), 1};
  const Real most = -Real(clip.dual) * advantage;
  if (clip.dual != 0.0f && advantage < Real(0) && term.value > most) term = {most, Real(0), 2};
  return term;
}

template <class Real>
DEVICE Term<Real> weighted_logprob(Real logprob, Real ratio, Real advantage, Clip clip) {
  const Real bounded = clamped(ratio, Real(1) - Real(clip.low), Real(1) + Real(clip.high));
  const Real derivative = -bounded * advantage;
  return {derivative == Real(0) ? Real(0) : derivative * logprob, derivative, bounded == ratio ? 0u : 1u};
}

template <class Real>
DEVICE Term<Real> token_term(const Terms& terms, const Inputs& inputs, u64 i, Real logprob) {
  if (terms.token == TOKEN_NONE) return {Real(0), Real(0), 0};
  if (terms.token == TOKEN_CROSS_ENTROPY) return {-logprob, Real(-1), 0};
  if (terms.token == TOKEN_GIVEN) return {Real(0), Real(terms.sign) * inputs.weights[i], 0};
  const Real old = inputs.old[i], advantage = inputs.advantages[i];
  const Real ratio = terms.token == TOKEN_GSPO ? old : ratio_of(logprob, old);
  Term<Real> term = terms.token == TOKEN_CISPO ? weighted_logprob(logprob, ratio, advantage, terms.clip)
                                               : clipped_policy(ratio, advantage, terms.clip);
  if (inputs.importance) {
    term.value *= inputs.importance[i];
    term.derivative *= inputs.importance[i];
  }
  return term;
}

// Value and derivative of the estimate, without its coefficient.
template <class Real>
DEVICE Term<Real> kl_term(const Terms& terms, const Inputs& inputs, u64 i, Real logprob) {
  if (terms.kl == KL_NONE) return {Real(0), Real(0), 0};
  const Real d = logprob - inputs.reference[i];
  if (terms.kl == KL_K1) return {d, Real(1), 0};
  if (terms.kl == KL_K2) return {Real(0.5) * d * d, d, 0};
  const Real power = exponential_minus_1(d < Real(-80) ? Real(80) : -d), k3 = power + d;
  if (terms.kl == KL_LOW_VAR && k3 > Real(10)) return {Real(10), Real(0), 0};
  return {k3, -power, 0};
}

// What a row comes to.
struct Outcome {
  Stat stat;
  Dense dense;
  bool live;  // whether any of the gradient differs from 0
};

// The row's own weight, and that of its entropy.
template <class Real>
DEVICE void weights_of(const Terms& terms, const Inputs& inputs, u64 i, Real& own, Real& entropy) {
  own = terms.token == TOKEN_GIVEN ? Real(1) : Real(inputs.weights[i]);
  entropy = own * Real(terms.entropy_coef);
  if (terms.token == TOKEN_GIVEN) entropy = inputs.importance ? -Real(inputs.importance[i]) : Real(0);
}

#if !CANDIDATES
// As below for the taken token alone. `rest` is the row without it; exponents are relative to the larger of
// the row's offset and the token's, which keeps the digits of a log-prob near 0 and of 1 - p.
DEVICE Outcome row_terms(const Terms& terms, const Inputs& inputs, u64 i, Softmax rest, Entry* entry, u32) {
  const float nats = (float)terms.scale.nats, inverse_temperature = (float)terms.scale.inverse_temperature;
  const float x = entry->logit;
  float t = exponent(x, rest.frame, terms.scale.base2);
  bool has_rest = rest.plain != 0.0f;
  // Logits on both ends of the range: the distance between them is beyond it.
  if (t > 1e30f && x < -NEGATIVE_INFINITY) {
    t = 0.0f;
    has_rest = false;
  }
  const float top = has_rest ? fmaxf(t, 0.0f) : t, scale = has_rest ? exp2f(-top) : 0.0f;
  const float own = exp2f(t - top), others = has_rest ? scale * rest.plain : 0.0f, sum = own + others;
  const float log2_sum = own == 1.0f ? log1pf(others) * LOG2_E : log2f(sum);
  float weighted = own == 0.0f ? 0.0f : own * (t - top);
  if (has_rest) weighted += scale * (rest.weighted - top * rest.plain);
  const float logprob = (t - top - log2_sum) * nats, p = own / sum;
  const float spread = (log2_sum - weighted / sum) * nats, entropy = spread < 0.0f ? 0.0f : spread;

  const Term<float> token = token_term(terms, inputs, i, logprob), kl = kl_term(terms, inputs, i, logprob);
  Outcome outcome;
  const float total = token.value + terms.kl_coef * kl.value - terms.entropy_coef * entropy;
  outcome.stat = {total, logprob, entropy, kl.value, 0.0f, token.clipped};
  float weight, by_entropy;
  weights_of(terms, inputs, i, weight, by_entropy);
  const float derivative = token.derivative + terms.kl_coef * kl.derivative, u = weight * derivative;
  outcome.live = !(by_entropy == 0.0f) || !(derivative == 0.0f);
  const float from_entropy = by_entropy == 0.0f || p == 0.0f ? 0.0f : p * by_entropy * (logprob + entropy);
  const float factor = inverse_temperature * scale / sum;
  const float constant = by_entropy == 0.0f ? 0.0f : by_entropy * (entropy - (top + log2_sum) * nats);
  outcome.dense = {rest.frame, (constant - u) * factor, by_entropy * nats * factor};
  // 1 - p without a difference.
  if (lane_index() == 0) entry->value = (u * (others / sum) + from_entropy) * inverse_temperature;
  return outcome;
}
#else
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

// Each lane looks after every 32nd entry.
#define FOR_EACH_ENTRY(e, end) for (u32 e = lane_index(); e < (end); e += 32)

// The clipped policy loss of the candidates; sets their derivatives.
DEVICE Value candidates_policy(const Terms& terms, const Inputs& inputs, u64 i, Entry* entries,
                               const Row& row) {
  double value = 0.0;
  FOR_EACH_ENTRY(e, terms.k) {
    if (entries[e].id < 0) continue;
    const u64 slot = i * terms.k + e;
    const double weight = inputs.slot_weights[slot];
    const double ratio = ratio_of(row.logprob(entries[e].logit), (double)inputs.slot_old[slot]);
    const Term<double> term =
        clipped_policy(ratio, (double)inputs.slot_advantages[slot], terms.candidate_clip);
    value += weight * term.value;
    entries[e].value = terms.candidate_coef * weight * term.derivative;
  }
  return {warp_sum(value), 0.0};
}

// The largest log of the candidates' mass that leaves the tail a gradient.
#define LOG_MASS_LIMIT -1e-7

// KL(student | teacher) over the candidates and a bin of all other tokens, which holds `tail`; sets the
// derivatives. The tail is a sum over the other tokens, not 1 minus the candidates: it keeps its digits when
// it is tiny.
DEVICE Value candidates_reverse_kl(const Terms& terms, const Inputs& inputs, u64 i, Entry* entries,
                                   const Row& row, double tail) {
  double mass = 0.0;
  FOR_EACH_ENTRY(e, terms.k)
  if (entries[e].id >= 0) mass += exp((double)inputs.slot_old[i * terms.k + e]);
  const double log_teacher_tail = log(-expm1(fmin(log(warp_sum(mass)), LOG_MASS_LIMIT)));
  const double smallest = -expm1(LOG_MASS_LIMIT);
  const bool open = tail > smallest || tail != tail;
  if (!open) tail = smallest;
  const double log_tail = log(tail), coef = terms.candidate_coef;
  const double entropy_coef = coef * terms.candidate_entropy_coef;
  double kl = 0.0, entropy = 0.0;
  FOR_EACH_ENTRY(e, terms.k) {
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
  kl = warp_sum(kl) + tail * (log_tail - log_teacher_tail);
  entropy = warp_sum(entropy) - tail * log_tail;
  return {kl, -entropy_coef * entropy};
}

// Called by the whole warp 0, with the softmax of the row without its entries, the entries' logits filled in
// and their values 0. The first `k` entries are candidates by slot, the last is the taken token unless
// `taken` says that it is one of them. Leaves the entries' gradients in their values.
DEVICE Outcome row_terms(const Terms& terms, const Inputs& inputs, u64 i, Softmax rest, Entry* entries,
                         u32 taken) {
  const u32 k = terms.k, count = k + 1;
  const bool has_rest = rest.plain != 0.0f;
  const double base2 = terms.scale.base2, origin = rest.frame.shift * base2 + rest.frame.offset;

  double top = has_rest ? origin : (double)NEGATIVE_INFINITY;
  FOR_EACH_ENTRY(e, count)
  if (entries[e].id >= 0) top = fmax(top, entries[e].logit * base2);
  for (int offset = 16; offset; offset >>= 1) top = fmax(top, __shfl_xor_sync(ALL_LANES, top, offset));
  double sum = 0.0, weighted = 0.0;
  FOR_EACH_ENTRY(e, count) {
    if (entries[e].id < 0 || entries[e].logit == NEGATIVE_INFINITY) continue;
    const double t = entries[e].logit * base2 - top, power = exp2(t);
    sum += power;
    weighted += t * power;
  }
  sum = warp_sum(sum);
  weighted = warp_sum(weighted);
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
    candidates = candidates_policy(terms, inputs, i, entries, row);
  } else if (terms.candidates == CANDIDATES_REVERSE_KL) {
    double tail = has_rest ? scale * rest.plain / sum : 0.0;
    if (taken == k) tail += row.probability(taken_logit);
    candidates = candidates_reverse_kl(terms, inputs, i, entries, row, tail);
  }
  const Term<double> token = token_term(terms, inputs, i, logprob), kl = kl_term(terms, inputs, i, logprob);
  total +=
      terms.candidate_coef * candidates.value + candidates.beside + token.value + terms.kl_coef * kl.value;
  outcome.stat = {(float)total,    (float)logprob,          (float)row.entropy,
                  (float)kl.value, (float)candidates.value, token.clipped};

  double weight, by_entropy;
  weights_of(terms, inputs, i, weight, by_entropy);
  const double by_taken = token.derivative + terms.kl_coef * kl.derivative;
  const auto derivative = [&](u32 e) {
    return (e < k ? entries[e].value : 0.0) + (e == taken ? by_taken : 0.0);
  };
  double derivatives = 0.0;
  bool any = false;
  FOR_EACH_ENTRY(e, count) {
    derivatives += derivative(e);
    any = any || !(derivative(e) == 0.0);
  }
  outcome.live = !(by_entropy == 0.0) || __any_sync(ALL_LANES, any);
  const double u = weight * warp_sum(derivatives);
  FOR_EACH_ENTRY(e, count) {
    if (entries[e].id < 0) continue;
    const float x = entries[e].logit;
    const double p = row.probability(x), own = weight * derivative(e);
    const double entropy = by_entropy == 0.0 || p == 0.0 ? 0.0 : by_entropy * (row.logprob(x) + row.entropy);
    entries[e].value = (own - p * (u - entropy)) * terms.scale.inverse_temperature;
  }
  const double factor = terms.scale.inverse_temperature * scale / sum;
  const double at_0 = row.entropy + (moved - log2_sum) * terms.scale.nats;
  const double constant = by_entropy == 0.0 ? 0.0 : by_entropy * at_0;
  outcome.dense = {rest.frame, (float)((constant - u) * factor),
                   (float)(by_entropy * terms.scale.nats * factor)};
  return outcome;
}
#endif
