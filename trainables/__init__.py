"""Trainables: the methods, their adaptation and what it costs.

The letters, used in every docstring and shape comment below:

========  =======================================================================
letter    meaning
========  =======================================================================
N         ways: classes of a task
K         shots: support images per class
Q         queries per class
T         inner steps
B         tasks adapted together (the meta-batch at training)
M         images of one task in a forward pass (N*K support, N*Q query)
C H W     channels, height, width of an image
L         bits of a Lambda pattern: the network's layers, head included
theta     the student's meta-learned parameters; primes mark adapted ones
psi       the teacher's meta-learned parameters
alpha     inner learning rate
epsilon   allowed loss of accuracy, in [0, 1]
Lambda    pattern: one bit per layer, input side first; 1 = updated
========  =======================================================================

Accuracy lies in [0, 1]; ``_ms`` are milliseconds, ``_mib`` mebibytes, ``_s`` seconds;
multiply-accumulates (``_macs``) count one multiplication with its addition as one.
"""
