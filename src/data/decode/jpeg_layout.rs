//! What a JPEG's markers promise (ITU-T T.81, annex B): its frame, its scans, and whether all of it is there.
//!
//! The decoder fills in grey where scans are missing, and takes files for broken that only lack their end marker; so both are looked up here.

use std::iter::repeat_n;

use super::jpeg::MAX_SCANS;

/// What a frame's header says of one component.
#[derive(Clone, Copy, Debug)]
pub(super) struct Component {
    id: u8,
    /// Samples across and down, relative to the other components'.
    pub sampling: (u8, u8),
}

/// One scan's header.
#[derive(Debug)]
struct Scan {
    /// Identifiers of the components in it.
    components: Vec<u8>,
    /// First and last coefficient.
    band: (u8, u8),
    /// Bits that later scans still have to bring.
    missing_bits: u8,
}

/// A JPEG's frame and scans.
#[derive(Debug)]
pub(super) struct Layout {
    marker: u8,
    precision: u8,
    /// Pixels across.
    pub width: u16,
    /// Pixels down.
    pub height: u16,
    /// One for grey, three for colour, four for CMYK and YCCK.
    pub components: Vec<Component>,
    scans: Vec<Scan>,
    /// Whether more than one scan was looked for, and no end marker found behind them.
    pub lacks_end: bool,
}

const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;

impl Layout {
    /// Reads the markers up to the only scan, or to the end of the file where there are several.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let cut = || "is a JPEG that ends within its header: the file is cut off".to_owned();
        let mut layout = Self { marker: 0, precision: 0, width: 0, height: 0, components: Vec::new(), scans: Vec::new(), lacks_end: false };
        let mut at = 2;
        loop {
            let Some(found) = next_marker(bytes, at) else {
                layout.lacks_end = true;
                break;
            };
            at = found.1;
            match found.0 {
                END_OF_IMAGE => break,
                0x01 | 0xD0..=0xD8 => continue,
                _ => {}
            }
            let length = usize::from(word(bytes, at).ok_or_else(cut)?);
            let Some(body) = bytes.get(at + 2..at + length.max(2)) else { return Err(cut()) };
            at += length.max(2);
            match found.0 {
                0xF7 => return Err("holds a JPEG-LS image, which is not read".into()),
                0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => layout.frame(found.0, body).ok_or_else(cut)?,
                START_OF_SCAN => {
                    layout.scan(body).ok_or("cannot be decoded: a scan's header is damaged")?;
                    if layout.scans.len() > MAX_SCANS {
                        return Err(format!("cannot be decoded: more than {MAX_SCANS} scans"));
                    }
                    if !layout.has_several_scans() {
                        break;
                    }
                }
                _ => {}
            }
        }
        if layout.marker == 0 {
            return Err("is a JPEG without a frame: the file is cut off, or damaged".into());
        }
        Ok(layout)
    }

    fn frame(&mut self, marker: u8, body: &[u8]) -> Option<()> {
        // A second frame belongs to a hierarchical file, which is refused by its first.
        if self.marker != 0 {
            return Some(());
        }
        (self.precision, self.height, self.width) = (*body.first()?, word(body, 1)?, word(body, 3)?);
        let components = body.get(6..6 + 3 * usize::from(*body.get(5)?))?;
        self.components = components.chunks_exact(3).map(|c| Component { id: c[0], sampling: (c[1] >> 4, c[1] & 15) }).collect();
        self.marker = marker;
        Some(())
    }

    fn scan(&mut self, body: &[u8]) -> Option<()> {
        let count = usize::from(*body.first()?);
        let components = body.get(1..1 + 2 * count)?.chunks_exact(2).map(|c| c[0]).collect();
        let &[first, last, bits] = body.get(1 + 2 * count..4 + 2 * count)? else { return None };
        self.scans.push(Scan { components, band: (first, last), missing_bits: bits & 15 });
        Some(())
    }

    /// Whether coefficients come in several turns.
    pub fn is_progressive(&self) -> bool {
        self.marker == 0xC2
    }

    /// Whether the file is not one scan of everything.
    pub fn has_several_scans(&self) -> bool {
        self.is_progressive() || self.scans.first().is_some_and(|scan| scan.components.len() < self.components.len())
    }

    /// How many scans there are.
    pub fn scans(&self) -> usize {
        self.scans.len()
    }

    /// Blocks of a component, in whole units as interleaved scans have them.
    fn blocks_of(&self, component: &Component) -> u64 {
        let (across, down) = self.largest_sampling();
        let along = |pixels: u16, largest: u8, own: u8| u64::from(pixels).div_ceil(8 * u64::from(largest.max(1))) * u64::from(own);
        along(self.width, across, component.sampling.0) * along(self.height, down, component.sampling.1)
    }

    /// Blocks of all components.
    pub fn blocks(&self) -> u64 {
        self.components.iter().map(|component| self.blocks_of(component)).sum()
    }

    /// Blocks that all scans together pass over.
    pub fn scanned_blocks(&self) -> u64 {
        let of = |id: &u8| self.components.iter().find(|component| component.id == *id).map_or(0, |component| self.blocks_of(component));
        self.scans.iter().flat_map(|scan| &scan.components).map(of).sum()
    }

    /// The largest sampling factors, across and down.
    pub fn largest_sampling(&self) -> (u8, u8) {
        let largest = |factor: fn(&Component) -> u8| self.components.iter().map(factor).max().unwrap_or(1);
        (largest(|c| c.sampling.0), largest(|c| c.sampling.1))
    }

    /// Samples of all components together, per pixel.
    pub fn samples_per_pixel(&self) -> f64 {
        let (across, down) = self.largest_sampling();
        let samples: f64 = self.components.iter().map(|c| f64::from(c.sampling.0) * f64::from(c.sampling.1)).sum();
        samples / (f64::from(across) * f64::from(down)).max(1.0)
    }

    /// Whether the first component, or the fourth, has fewer samples than others, or any of four has: what the decoder itself does not expand right.
    pub fn is_sampled_oddly(&self) -> bool {
        let largest = self.largest_sampling();
        self.components.first().is_some_and(|c| c.sampling != largest && self.components.len() > 1)
            || self.components.len() == 4 && self.components.iter().any(|c| c.sampling != largest)
    }

    /// Refuses kinds that are not read, and files that are not whole.
    pub fn check(&self) -> Result<(), String> {
        let not_read = |kind: &str| Err(format!("is a JPEG {kind}, which is not read"));
        match self.marker {
            0xC0..=0xC2 => {}
            0xC9 | 0xCA => return not_read("with arithmetic coding (whether such a file is whole cannot be told)"),
            0xC3 | 0xCB => return not_read("with lossless coding"),
            _ => return not_read("of the hierarchical kind"),
        }
        if self.precision != 8 {
            return not_read(&format!("of {} bits a sample", self.precision));
        }
        if self.width == 0 || self.height == 0 {
            return not_read(&format!("of {}x{} pixels (its height may be given behind its data)", self.width, self.height));
        }
        if ![1, 3, 4].contains(&self.components.len()) {
            return not_read(&format!("of {} components", self.components.len()));
        }
        let (across, down) = self.largest_sampling();
        if self.components.iter().any(|c| !(1..=4).contains(&c.sampling.0) || !(1..=4).contains(&c.sampling.1)) {
            return Err("cannot be decoded: its sampling factors are not from 1 to 4".into());
        }
        if self.components.iter().any(|c| across % c.sampling.0 != 0 || down % c.sampling.1 != 0) {
            return not_read("whose components differ in size by a fraction");
        }
        if self.scans.is_empty() {
            return Err("is a JPEG that ends before its first scan: the file is cut off".into());
        }
        // Every scan whole is the decoder's affair; here, that none is missing.
        if self.has_several_scans() && !self.components.iter().all(|component| self.is_complete(component.id)) {
            return Err("is a JPEG that ends before its last scan: the file is cut off".into());
        }
        Ok(())
    }

    /// Whether the scans bring every bit of every coefficient of a component.
    fn is_complete(&self, id: u8) -> bool {
        let mut missing: Vec<Option<u8>> = repeat_n(None, 64).collect();
        for scan in self.scans.iter().filter(|scan| scan.components.contains(&id)) {
            let (first, last) = if self.is_progressive() { scan.band } else { (0, 63) };
            if let Some(band) = missing.get_mut(usize::from(first)..=usize::from(last).max(first.into())) {
                band.fill(Some(if self.is_progressive() { scan.missing_bits } else { 0 }));
            }
        }
        missing.iter().all(|bits| *bits == Some(0))
    }

    /// Whether some sequential scan holds several components, but not all.
    pub fn is_partly_interleaved(&self) -> bool {
        !self.is_progressive() && self.has_several_scans() && self.scans.iter().any(|scan| scan.components.len() > 1)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The next marker from `at` on and where it ends. Whatever is in between is passed over, as libjpeg does: a scan's data, in which 0xFF is escaped, or stray bytes.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let mut at = at;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xFF)? + 1;
        match bytes.get(at)? {
            // Escaped, filled, or a restart.
            0x00 | 0xD0..=0xD7 => at += 1,
            0xFF => {}
            marker => return Some((*marker, at + 1)),
        }
    }
}
