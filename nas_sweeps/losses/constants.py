"""Numbers that losses default to, with their sources. No torch."""

EFFECTIVE_BETA = 0.9999  # LDAM cifar_train.py; Cui et al. 2019, arXiv 1901.05555
FOCAL_GAMMA = 1.0  # LDAM losses.py; Lin et al. 2017 prefer 2 for detection
LDAM_MARGIN = 0.5  # LDAM losses.py: the margin of the rarest class
LDAM_SCALE = 30.0  # LDAM losses.py: s
DEFERRED = 0.8  # LDAM cifar_train.py: from epoch 160 of 200
SMOOTHING_HEAD = 0.1  # MiSLAS cifar10_imb01_stage2_mislas.yaml; at mu = 0.01 it has 0.3
