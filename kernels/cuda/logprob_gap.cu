// How much likelier the teacher finds the taken token than the student does: one block reads both rows, each
// once.

KERNEL(logprob_gap, (BLOCK, 6), const Logit* student, const Logit* teacher, u64 stride, u32 vocab,
       Scale scale, const int* targets, float* student_logprobs, float* teacher_logprobs, float* gaps) {
  const u64 i = blockIdx.x;
  const int target = targets[i];
  if (target < 0) {
    if (threadIdx.x == 0) student_logprobs[i] = teacher_logprobs[i] = gaps[i] = 0.0f;
    return;
  }
  double of_student = 0.0, of_teacher = 0.0;
#pragma unroll 1
  for (int side = 0; side < 2; side++) {
    const Logit* row = (side == 0 ? student : teacher) + i * stride;
    const float taken = widen(row[target]);
    const Softmax softmax = read_row<true, false>(row, vocab, scale.base2, [](uint4 v, u32) { return v; });
    of_student = of_teacher;
    if (threadIdx.x == 0) of_teacher = distribution(softmax, scale).logprob(taken);
  }
  if (threadIdx.x == 0) {
    student_logprobs[i] = (float)of_student;
    teacher_logprobs[i] = (float)of_teacher;
    gaps[i] = (float)(of_teacher - of_student);
  }
}
