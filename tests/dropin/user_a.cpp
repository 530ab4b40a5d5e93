// A consumer's first source file: only the interface.
#include "qlora.h"

#include <cstdio>

int errors_are_catchable();

int main() {
    qlora::Graph g(qlora::Backend::cpu(1));
    const qlora::Tensor x = g.input({2, 3}), w = g.param({1, 3});
    const qlora::Tensor loss = qlora::sum(qlora::matmul(x, w));
    g.backward(loss);
    const float values[] = {1, 2, 3, 4, 5, 6}, weights[] = {1, 0, 2};
    g.write(x, values);
    g.write(w, weights);
    g.run();
    const std::vector<float> grad = g.read(g.grad(w));
    std::printf("loss %g, gradient %g %g %g\n", double(g.read(loss)[0]), double(grad[0]), double(grad[1]),
                double(grad[2]));
    return g.read(loss)[0] == 23 && grad[0] == 5 && grad[1] == 7 && grad[2] == 9 ? errors_are_catchable() : 1;
}
