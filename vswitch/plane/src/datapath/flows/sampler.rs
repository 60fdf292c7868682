//! Which frames of a port are looked at. Points lie on the bytes that pass, at distances that are drawn anew each time; a frame on which one or more of
//! them lie is looked at, and stands for the mean distance with each. So bytes count alike, whether they come in long frames or in short ones, and no
//! rhythm of the traffic meets one of the points.
//!
//! The distance follows the traffic, so that as many frames are looked at in each window of half a second. A burst after a pause doubles it
//! at once. Each frame is weighed by the distance that held when it came: the sums stay right on average, whatever the distance does.

/// Frames to be looked at in a window.
pub(super) const AIM: u32 = 256;

/// Counts down to the next frame that is looked at.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Bytes to the next point.
    left: u64,
    /// The mean distance of points, in bytes; 0: every frame is looked at, and stands for itself.
    distance: u64,
    window: Window,
    random: u64,
}

/// What is known of the traffic of this window.
#[derive(Debug, Default)]
struct Window {
    /// Frames that were looked at since the distance changed.
    looks: u32,
    /// Estimates of what passed.
    bytes: u64,
    frames: f64,
}

impl Sampler {
    pub(super) fn new(seed: u64) -> Self {
        // The numbers are drawn by a rule that 0 does not leave.
        Self { left: 0, distance: 0, window: Window::default(), random: seed | 1 }
    }

    /// For how many bytes a frame of this length stands, if it is looked at.
    pub(super) fn pass(&mut self, length: u64) -> Option<u64> {
        if length < self.left && length < self.distance {
            self.left -= length;
            return None;
        }
        self.weigh(length)
    }

    fn weigh(&mut self, length: u64) -> Option<u64> {
        let bytes = if self.distance == 0 { length } else { self.points(length) * self.distance };
        if bytes == 0 {
            return None;
        }
        self.window.looks += 1;
        self.window.bytes += bytes;
        self.window.frames += bytes as f64 / length as f64;
        if self.window.looks >= 2 * AIM {
            self.window.looks -= AIM;
            let distance = (2 * self.distance).max(self.window.bytes / u64::from(AIM));
            self.set_distance(distance);
        }
        Some(bytes)
    }

    /// How many points lie on a frame.
    fn points(&mut self, length: u64) -> u64 {
        // What is longer than the distance has its share for certain, and no more than the rest depends on chance.
        let (mut points, mut rest) = (length / self.distance, length % self.distance);
        while rest >= self.left {
            rest -= self.left;
            self.left = self.distance / 2 + self.draw(self.distance) + 1;
            points += 1;
        }
        self.left -= rest;
        points
    }

    /// The window is over: the next one has the distance that this one should have had.
    pub(super) fn end_window(&mut self) {
        let Window { bytes, frames, .. } = std::mem::take(&mut self.window);
        let distance = if frames <= f64::from(AIM) { 0 } else { bytes / u64::from(AIM) };
        if distance != self.distance {
            self.set_distance(distance);
        }
    }

    fn set_distance(&mut self, distance: u64) {
        self.distance = distance;
        self.left = if distance == 0 { 0 } else { self.draw(distance) + 1 };
    }

    /// The next number below `end`, evenly (xorshift64*, Vigna 2016).
    fn draw(&mut self, end: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let number = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        u64::try_from((u128::from(number) * u128::from(end)) >> 64).unwrap_or_default()
    }
}
