from kerasmlp.layers.batch_norm import BatchNorm as BatchNorm
from kerasmlp.layers.downsample_block import DownsampleBlock as DownsampleBlock
from kerasmlp.layers.gaussian_head import GaussianHead as GaussianHead
from kerasmlp.layers.ic_layer import ICLayer as ICLayer
from kerasmlp.layers.member_dense import MemberDense as MemberDense
from kerasmlp.layers.member_ends import MemberMean as MemberMean
from kerasmlp.layers.member_ends import ToMembers as ToMembers
from kerasmlp.layers.random_erasing import RandomErasing as RandomErasing
from kerasmlp.layers.residual_block import ResidualBlock as ResidualBlock
from kerasmlp.layers.standardize import Standardize as Standardize

def register() -> None: ...
