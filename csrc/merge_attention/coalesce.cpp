#include "merge_attention/coalesce.h"

#include <algorithm>
#include <vector>

namespace vlmk {

void coalesce_rows(MergeProblem& p) {
    std::vector<SplitTensor*> tensors;
    for (SplitTensor* t :
         {&p.outputs, &p.lses, &p.out, &p.lse, &p.grad_out, &p.grad_lse, &p.grad_outputs, &p.grad_lses})
        if (t->data != nullptr) tensors.push_back(t);

    int64_t sizes[kMergeDims] = {1, 1, 1, 1};
    int to = kMergeDims;  // the outermost dimension kept so far; never inside of `from`
    for (int from = kMergeDims - 1; from >= 0; --from) {
        if (p.rows[from] == 1) continue;
        const bool one_run = to < kMergeDims && std::all_of(
                                                    tensors.begin(), tensors.end(),
                                                    [&](const SplitTensor* t) {
                                                        return t->row_stride[from] == t->row_stride[to] * sizes[to];
                                                    });
        if (!one_run) {
            --to;
            for (SplitTensor* t : tensors) t->row_stride[to] = t->row_stride[from];
        }
        sizes[to] *= p.rows[from];
    }
    std::copy(sizes, sizes + kMergeDims, p.rows);
    for (SplitTensor* t : tensors) std::fill(t->row_stride, t->row_stride + to, 0);
}

}  // namespace vlmk
