//! Which frames of a port are looked at. Points lie on the bytes that pass, by chance and independent of each other (a Poisson process); a frame on
//! which one or more of them lie is looked at, and stands for their mean distance with each. So bytes count alike, whether they come in long frames
//! or in short ones, and no rhythm of the traffic meets one of the points. The bytes are those that the port counts anyway: a frame that is not
//! looked at costs a comparison.
//!
//! The distance follows the traffic, so that as many frames are looked at in each window of half a second. A burst after a pause doubles it
//! at once. Each frame is weighed by the distance that held when it came: the sums stay right on average, whatever the distance does.

/// Frames to be looked at in a window.
pub(super) const AIM: u32 = 256;

/// Knows where the next frame is that is looked at.
#[derive(Debug)]
pub(super) struct Sampler {
    /// The next point, on the bytes that the port has received.
    next: u64,
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
        Self { next: 0, distance: 0, window: Window::default(), random: seed | 1 }
    }

    /// For how many bytes a frame of this length stands, with which the port has received so many, if it is looked at.
    #[inline]
    pub(super) fn pass(&mut self, received: u64, length: u64) -> Option<u64> {
        if received < self.next { None } else { self.weigh(received, length) }
    }

    /// The same of a frame that the port has not received here, but elsewhere.
    pub(super) fn pass_more(&mut self, received: u64, length: u64) -> Option<u64> {
        let bytes = self.pass(received + length, length);
        self.next = self.next.saturating_sub(length);
        bytes
    }

    fn weigh(&mut self, received: u64, length: u64) -> Option<u64> {
        let bytes = if self.distance == 0 { length } else { self.points(received, length) * self.distance };
        if bytes == 0 {
            return None;
        }
        self.window.looks += 1;
        self.window.bytes += bytes;
        self.window.frames += bytes as f64 / length as f64;
        if self.window.looks >= 2 * AIM {
            self.window.looks -= AIM;
            let distance = (2 * self.distance).max(self.window.bytes / u64::from(AIM));
            self.set_distance(distance, received);
        }
        Some(bytes)
    }

    /// How many points lie on a frame.
    fn points(&mut self, received: u64, length: u64) -> u64 {
        let begin = received.saturating_sub(length);
        if self.next <= begin {
            // It lay on what was counted and never came here. Where one is says nothing of where the next is.
            self.next = begin + self.step();
        }
        if self.next > received {
            return 0;
        }
        // Behind the first there are as many as there should be on average: less noise than drawing each, and as much work on any frame.
        let more = ((received - self.next) as f64 + 0.5) / self.distance as f64 + self.fraction();
        self.next = received + self.step();
        1 + whole(more)
    }

    /// The window is over: the next one has the distance that this one should have had.
    /// `received` is what the port has received by now.
    pub(super) fn end_window(&mut self, received: u64) {
        let Window { bytes, frames, .. } = std::mem::take(&mut self.window);
        let distance = if frames <= f64::from(AIM) { 0 } else { bytes / u64::from(AIM) };
        if distance != self.distance {
            self.set_distance(distance, received);
        }
    }

    fn set_distance(&mut self, distance: u64, received: u64) {
        self.distance = distance;
        self.next = if distance == 0 { 0 } else { received + self.step() };
    }

    /// How far it is to the next point, from wherever.
    fn step(&mut self) -> u64 {
        whole((-self.fraction().ln() * self.distance as f64).ceil())
    }

    /// The next number between 0 and 1, neither of which it is (xorshift64*, Vigna 2016).
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let number = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((number >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }
}

/// A number without what is behind the point.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
const fn whole(number: f64) -> u64 {
    // Of a number below 0, 0; of one that is too large, the largest.
    number as u64
}
