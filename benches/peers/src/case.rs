//! Names of cases, taken apart.

/// What a name asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Case {
    /// `matmul_256`.
    Matmul { n: usize },
    /// `conv_fwd_c3s2_64_128_56_b4` and `conv_fwdbwd_…`.
    Conv { conv: Conv, batch: usize, backward: bool },
    /// `bnrelu_fwdbwd_64_56_b4`.
    BatchNorm { channels: usize, size: usize, batch: usize },
    /// `resnet50_step_224_b1`.
    Step { depth: usize, size: usize, batch: usize },
    /// `swav_step_resnet50_2x224_6x96_b2`: how many crops of which size, with the prototypes of our case.
    Swav { depth: usize, crops: [(usize, usize); 2], batch: usize, prototypes: usize },
}

/// A square convolution that keeps the size, up to its stride.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv {
    pub kernel: usize,
    pub stride: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub size: usize,
}

impl Conv {
    /// Floating point operations of a forward pass.
    pub fn flops(self, batch: usize) -> f64 {
        let out = self.size.div_ceil(self.stride);
        2.0 * (batch * out * out * self.outputs * self.inputs * self.kernel * self.kernel) as f64
    }
}

impl Case {
    /// `None` for what has no twin here.
    pub fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('_').collect();
        let number = |text: &str| text.parse::<usize>().ok();
        let batch = |text: &str| number(text.strip_prefix('b')?);
        match *parts.as_slice() {
            ["matmul", n] => Some(Self::Matmul { n: number(n)? }),
            ["conv", pass @ ("fwd" | "fwdbwd"), window, inputs, outputs, size, b] => {
                let (kernel, stride) = window.strip_prefix('c').map(|w| w.split_once('s').unwrap_or((w, "1")))?;
                let [kernel, stride, inputs, outputs, size] = [kernel, stride, inputs, outputs, size].map(number);
                let conv = Conv { kernel: kernel?, stride: stride?, inputs: inputs?, outputs: outputs?, size: size? };
                Some(Self::Conv { conv, batch: batch(b)?, backward: pass == "fwdbwd" })
            }
            ["bnrelu", "fwdbwd", channels, size, b] => Some(Self::BatchNorm { channels: number(channels)?, size: number(size)?, batch: batch(b)? }),
            ["swav", "step", network @ ("resnet18" | "resnet50"), large, small, b] => {
                let crops = |text: &str| text.split_once('x').and_then(|(n, size)| Some((number(n)?, number(size)?)));
                let (depth, prototypes) = if network == "resnet18" { (18, 300) } else { (50, 3000) };
                Some(Self::Swav { depth, crops: [crops(large)?, crops(small)?], batch: batch(b)?, prototypes })
            }
            [network @ ("resnet18" | "resnet50"), "step", size, b] => {
                Some(Self::Step { depth: number(&network[6..])?, size: number(size)?, batch: batch(b)? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_to_time() {
        let conv = Conv { kernel: 3, stride: 2, inputs: 128, outputs: 256, size: 28 };
        assert_eq!(Case::parse("conv_fwdbwd_c3s2_128_256_28_b4"), Some(Case::Conv { conv, batch: 4, backward: true }));
        assert_eq!(Case::parse("resnet18_step_32_b16"), Some(Case::Step { depth: 18, size: 32, batch: 16 }));
        assert_eq!(Case::parse("bnrelu_fwdbwd_64_56_b4"), Some(Case::BatchNorm { channels: 64, size: 56, batch: 4 }));
        let swav = Case::Swav { depth: 50, crops: [(2, 224), (6, 96)], batch: 64, prototypes: 3000 };
        assert_eq!(Case::parse("swav_step_resnet50_2x224_6x96_b64"), Some(swav));
        for other in ["swav_step_resnet50_2x224_6x96_b64_f16", "conv_wgrad_c3_64_64_56_b4", "sinkhorn_3000x4096", "swav_step_small_2x32_4x16_b64", ""] {
            assert_eq!(Case::parse(other), None, "{other}");
        }
    }
}
