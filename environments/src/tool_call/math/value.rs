//! Numbers of an answer: exact as long as they are fractions of bounded size, else floating point.
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Pow, Signed, ToPrimitive, Zero};

/// Largest numerator or denominator kept, in bits; `4^2024` fits, a tower of powers does not.
const BITS_MAX: u64 = 8192;

/// How far two floating-point values may be apart, relative to the larger.
const RELATIVE: f64 = 1e-9;

#[derive(Clone, Debug)]
pub(super) enum Value {
    Exact(BigRational),
    Approx(f64),
}

impl Value {
    pub(super) fn integer(value: i64) -> Self {
        Self::Exact(BigRational::from_integer(value.into()))
    }

    /// Digits with at most one point, times a power of ten.
    pub(super) fn decimal(whole: &str, fraction: &str, exponent: i32) -> Option<Self> {
        if whole.len() + fraction.len() > 1000 || exponent.abs() > 1000 {
            return None;
        }
        let digits: BigInt = format!("0{whole}{fraction}").parse().ok()?;
        let exponent = exponent - fraction.len() as i32;
        let scale = Pow::pow(BigInt::from(10), exponent.unsigned_abs());
        let value = if exponent < 0 {
            BigRational::new(digits, scale)
        } else {
            BigRational::from_integer(digits * scale)
        };
        Self::Exact(value).bounded()
    }

    /// Size in 64-bit words, the unit of the work that one operation on it takes.
    pub(super) fn words(&self) -> usize {
        match self {
            Self::Exact(value) => ((value.numer().bits() + value.denom().bits()) / 64) as usize + 1,
            Self::Approx(_) => 1,
        }
    }

    pub(super) fn to_f64(&self) -> f64 {
        match self {
            Self::Exact(value) => ratio_to_f64(value),
            Self::Approx(value) => *value,
        }
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(left), Self::Exact(right)) => left == right,
            _ => {
                let (left, right) = (self.to_f64(), other.to_f64());
                // Nothing is close to infinity.
                let both = left.is_finite() && right.is_finite();
                left == right
                    || both && (left - right).abs() <= (RELATIVE * left.abs().max(right.abs())).max(1e-12)
            }
        }
    }

    pub(super) fn neg(self) -> Self {
        match self {
            Self::Exact(value) => Self::Exact(-value),
            Self::Approx(value) => Self::Approx(-value),
        }
    }

    pub(super) fn add(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Exact(left), Self::Exact(right)) => Self::Exact(left + right).bounded(),
            (left, right) => finite(left.to_f64() + right.to_f64()),
        }
    }

    pub(super) fn mul(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Exact(left), Self::Exact(right)) => Self::Exact(left * right).bounded(),
            (left, right) => finite(left.to_f64() * right.to_f64()),
        }
    }

    pub(super) fn div(self, other: Self) -> Option<Self> {
        match (self, other) {
            (_, Self::Exact(right)) if right.is_zero() => None,
            (Self::Exact(left), Self::Exact(right)) => Self::Exact(left / right).bounded(),
            (left, right) => finite(left.to_f64() / right.to_f64()),
        }
    }

    pub(super) fn pow(self, exponent: Self) -> Option<Self> {
        if let (Self::Exact(base), Some(power)) = (&self, exponent.to_i32()) {
            if base.is_zero() && power <= 0 {
                return None;
            }
            let bits = base.numer().bits().max(base.denom().bits());
            if base.is_one() || bits.saturating_mul(u64::from(power.unsigned_abs())) <= BITS_MAX {
                let power = if base.is_one() { 1 } else { power };
                return Some(Self::Exact(Pow::pow(base, power)));
            }
        }
        finite(self.to_f64().powf(exponent.to_f64()))
    }

    /// The real root; exact where the root is a fraction.
    pub(super) fn root(self, degree: u32) -> Option<Self> {
        if !(2..=64).contains(&degree) {
            return None;
        }
        if let Self::Exact(value) = &self {
            let odd = degree % 2 == 1;
            if value.is_negative() && !odd {
                return None;
            }
            let (numer, denom) = (value.numer().nth_root(degree), value.denom().nth_root(degree));
            let root = BigRational::new(numer, denom);
            if Pow::pow(&root, degree) == *value {
                return Some(Self::Exact(root));
            }
        }
        let value = self.to_f64();
        finite(value.abs().powf(1.0 / f64::from(degree)).copysign(value))
            .filter(|_| value >= 0.0 || degree % 2 == 1)
    }

    pub(super) fn factorial(self) -> Option<Self> {
        // 900! has 7,500 bits.
        let n = self.to_i32().filter(|n| (0..=900).contains(n))?;
        Some(Self::Exact(BigRational::from_integer((1..=n).map(BigInt::from).product())))
    }

    pub(super) fn choose(self, other: Self) -> Option<Self> {
        let n = self.to_i32().filter(|n| (0..=8000).contains(n))?;
        let k = other.to_i32().filter(|k| (0..=n).contains(k))?;
        let mut result = BigInt::one();
        for i in 0..k.min(n - k) {
            result = result * (n - i) / (i + 1);
        }
        Self::Exact(BigRational::from_integer(result)).bounded()
    }

    pub(super) fn to_i32(&self) -> Option<i32> {
        match self {
            Self::Exact(value) if value.is_integer() => value.to_integer().to_i32(),
            _ => None,
        }
    }

    fn bounded(self) -> Option<Self> {
        match &self {
            Self::Exact(value) if value.numer().bits().max(value.denom().bits()) > BITS_MAX => {
                finite(ratio_to_f64(value))
            }
            _ => Some(self),
        }
    }
}

fn finite(value: f64) -> Option<Value> {
    value.is_finite().then_some(Value::Approx(value))
}

/// Also where numerator and denominator are both beyond a float.
fn ratio_to_f64(value: &BigRational) -> f64 {
    let over = value.numer().bits().min(value.denom().bits()).saturating_sub(900);
    let (numer, denom) = (value.numer() >> over, value.denom() >> over);
    numer.to_f64().unwrap_or(f64::INFINITY) / denom.to_f64().unwrap_or(f64::INFINITY)
}
