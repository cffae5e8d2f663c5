"""The maximal-update (feature-learning) limit of infinite width, exact at any finite learning rate.

The network has D inputs, `depth` hidden layers of width N, one output, and parameters drawn from N(0, 1):

    h^1 = W^0 x / sqrt(D),    h^{l+1} = W^l phi(h^l) / sqrt(N),    f = w . phi(h^L) / (gamma0 N).

Full-batch gradient descent on the loss mean (y - f)^2 / 2 has the learning rate `learning_rate` gamma0^2 N. As
N -> infinity, f(0) = 0 and neurons become independent; `gamma0` -> 0 is the lazy limit (the tangent kernel), large
`gamma0` the rich one. (Bordelon & Pehlevan, arXiv:2205.09653; Yang & Hu, arXiv:2011.14522.)

Each returns a [`Solution`]: the trajectory, the error of its numbers, and whether it has one.

| solver | networks | error |
|---|---|---|
| [`particles`] | one hidden layer | quadrature: 1e-6 up to six directions of inputs (relu: three), with an estimate |
| [`deep_linear`] | any depth, identity activation | rounding |
| [`dmft`] | any depth, any smooth activation | Monte Carlo, with its standard error |
"""

from theorysim.infinite.mup.deep_linear import deep_linear as deep_linear
from theorysim.infinite.mup.dmft import dmft as dmft
from theorysim.infinite.mup.particle import particles as particles
from theorysim.infinite.mup.solution import Solution as Solution
from theorysim.trajectory import Trajectory as Trajectory
