//! The property table of an element: each row gives a property, the field that stores it, its default and its specification.
//!
//! `settings!` generates from a table the settings struct, its defaults, the specifications, and access by name. It depends on no
//! element. Special cases (another meaning of NULL, a value that depends on another) are written in `set` and `get` of the
//! element's own settings.

use gst::glib;
use gst::prelude::*;

use gcstreamer_schema::units::duration;

/// A type that a property can have, and its representation as a setting.
pub(crate) trait Setting: Sized {
    /// Builder of the specification.
    type Builder<'a>
    where
        Self: 'a;

    /// Starts a specification with that default.
    fn builder<'a>(name: &'a str, default: &'a Self) -> Self::Builder<'a>;

    /// Stores the value. GObject has checked its type and range.
    fn assign(&mut self, value: &glib::Value);

    /// Returns the value; `None` if it is unset, so that the specification's default applies.
    fn read(&self) -> Option<glib::Value>;

    /// Returns the WARNING about the value of the property `name`, if any. The element still works.
    fn doubt(&self, _name: &str) -> Option<String> {
        None
    }
}

/// Times below this, 1 ms, are taken for a mistake: seconds given as ns.
const LEAST_TIME: u64 = 1_000_000;

/// A time in ns.
///
/// Below the minimum GObject would refuse a value with a log line that names no unit, and the element could not detect it. So
/// every value is accepted, and an unusable one causes a WARNING at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    value: u64,
    default: u64,
    least: u64,
}

impl Time {
    /// Creates a property with this default, ns.
    pub(crate) const fn of(default: u64) -> Self {
        Self {
            value: default,
            default,
            least: 0,
        }
    }

    /// Sets the minimum, ns; below it the default is used.
    pub(crate) const fn at_least(self, least: u64) -> Self {
        Self { least, ..self }
    }

    /// Returns the time to use, ns.
    pub(crate) const fn ns(self) -> u64 {
        if self.value < self.least { self.default } else { self.value }
    }
}

impl Setting for Time {
    type Builder<'a> = glib::ParamSpecUInt64Builder<'a>;

    fn builder<'a>(name: &'a str, default: &'a Self) -> Self::Builder<'a> {
        glib::ParamSpecUInt64::builder(name).default_value(default.default)
    }

    fn assign(&mut self, value: &glib::Value) {
        if let Ok(value) = value.get() {
            self.value = value;
        }
    }

    fn read(&self) -> Option<glib::Value> {
        Some(self.value.to_value())
    }

    fn doubt(&self, name: &str) -> Option<String> {
        let value = self.value;
        let instead = (value < self.least).then(|| {
            let (least, default) = (duration(self.least), duration(self.default));
            format!("it has to be at least {least}, so its default of {default} is used")
        });
        // 0 is no mistake: it means never, or no wait at all.
        match (1..LEAST_TIME).contains(&value) {
            true => {
                let meant = value.saturating_mul(1_000_000_000);
                let next = instead.unwrap_or_else(|| "all times are in ns; set the one that you mean".to_owned());
                Some(format!("{name} is {value} ns; {value} s is {meant}: {next}"))
            }
            false => instead.map(|instead| format!("{name} is {}: {instead}", duration(value))),
        }
    }
}

/// Optional text. A launch line cannot write NULL, so the empty string means NULL.
impl Setting for Option<String> {
    type Builder<'a> = glib::ParamSpecStringBuilder<'a>;

    fn builder<'a>(name: &'a str, default: &'a Self) -> Self::Builder<'a> {
        glib::ParamSpecString::builder(name).default_value(default.as_deref())
    }

    fn assign(&mut self, value: &glib::Value) {
        *self = value.get::<Self>().ok().flatten().filter(|text| !text.is_empty());
    }

    fn read(&self) -> Option<glib::Value> {
        Some(self.to_value())
    }
}

/// Text that may be empty; NULL means empty.
impl Setting for String {
    type Builder<'a> = glib::ParamSpecStringBuilder<'a>;

    fn builder<'a>(name: &'a str, default: &'a Self) -> Self::Builder<'a> {
        glib::ParamSpecString::builder(name).default_value(default.as_str())
    }

    fn assign(&mut self, value: &glib::Value) {
        *self = value.get::<Option<Self>>().ok().flatten().unwrap_or_default();
    }

    fn read(&self) -> Option<glib::Value> {
        Some(self.to_value())
    }
}

impl Setting for Option<gst::Structure> {
    type Builder<'a> = glib::ParamSpecBoxedBuilder<'a, gst::Structure>;

    fn builder<'a>(name: &'a str, _none: &'a Self) -> Self::Builder<'a> {
        glib::ParamSpecBoxed::builder(name)
    }

    fn assign(&mut self, value: &glib::Value) {
        *self = value.get().ok().flatten();
    }

    fn read(&self) -> Option<glib::Value> {
        Some(self.to_value())
    }
}

/// Numbers and flags; as an `Option` if it matters whether the user has set them.
macro_rules! plain {
    ($($type:ty: $spec:ident, $builder:ident;)*) => {$(
        impl Setting for $type {
            type Builder<'a> = glib::$builder<'a>;

            fn builder<'a>(name: &'a str, default: &'a Self) -> Self::Builder<'a> {
                glib::$spec::builder(name).default_value(*default)
            }

            fn assign(&mut self, value: &glib::Value) {
                if let Ok(value) = value.get() {
                    *self = value;
                }
            }

            fn read(&self) -> Option<glib::Value> {
                Some(self.to_value())
            }
        }

        impl Setting for Option<$type> {
            type Builder<'a> = glib::$builder<'a>;

            fn builder<'a>(name: &'a str, default: &'a Self) -> Self::Builder<'a> {
                glib::$spec::builder(name).default_value(default.unwrap_or_default())
            }

            fn assign(&mut self, value: &glib::Value) {
                *self = value.get().ok();
            }

            fn read(&self) -> Option<glib::Value> {
                self.map(|value| value.to_value())
            }
        }
    )*};
}

plain! {
    bool: ParamSpecBoolean, ParamSpecBooleanBuilder;
    u32: ParamSpecUInt, ParamSpecUIntBuilder;
    u64: ParamSpecUInt64, ParamSpecUInt64Builder;
    f64: ParamSpecDouble, ParamSpecDoubleBuilder;
}

/// Implements [`Setting`] for enumerations that derive `glib::Enum`.
macro_rules! enumerations {
    ($($type:ty),*) => {$(
        impl $crate::element::properties::Setting for $type {
            type Builder<'a> = glib::ParamSpecEnumBuilder<'a, Self>;

            fn builder<'a>(name: &'a str, default: &'a Self) -> Self::Builder<'a> {
                glib::ParamSpecEnum::builder_with_default(name, *default)
            }

            fn assign(&mut self, value: &glib::Value) {
                if let Ok(value) = value.get() {
                    *self = value;
                }
            }

            fn read(&self) -> Option<glib::Value> {
                Some(self.to_value())
            }
        }
    )*};
}

/// Returns why the property cannot be set while the element is PAUSED or PLAYING; `None` if it can.
pub(crate) fn refusal(spec: &glib::ParamSpec) -> Option<String> {
    spec.flags().contains(gst::PARAM_FLAG_MUTABLE_READY).then(|| {
        format!(
            "{} is not changed: it can be set in NULL and READY only, and this element is PAUSED or PLAYING; stop it first",
            spec.name()
        )
    })
}

/// Generates the settings of an element from a table with one row per property, in the order of the documentation:
///
/// ```text
/// "name": TYPE as field = DEFAULT, "Nick", "Blurb", .more_of_the_specification();
/// ```
///
/// A property without `as field = DEFAULT` is only specified: the element implements it.
macro_rules! settings {
    (@default $default:expr) => { $default };
    (@default) => { Default::default() };
    (
        $(#[$meta:meta])* $vis:vis struct $Settings:ident {
            $(
                $name:literal: $type:ty $(as $field:ident = $default:expr)?,
                $nick:literal, $blurb:literal, $(.$more:ident($($argument:expr)?))+;
            )*
        }
    ) => {
        $(#[$meta])*
        $vis struct $Settings {
            $($(pub $field: $type,)?)*
        }

        impl Default for $Settings {
            fn default() -> Self {
                Self {
                    $($($field: $default,)?)*
                }
            }
        }

        impl $Settings {
            /// Sets the property `name`; ignores other names.
            fn assign(&mut self, name: &str, value: &glib::Value) {
                match name {
                    $($($name => $crate::element::properties::Setting::assign(&mut self.$field, value),)?)*
                    _ => {}
                }
            }

            /// Returns the WARNING about the value of the property `name`, if any. The element still works.
            pub(super) fn doubt(&self, name: &str) -> Option<String> {
                match name {
                    $($($name => $crate::element::properties::Setting::doubt(&self.$field, $name),)?)*
                    _ => None,
                }
            }

            /// Returns one WARNING for each property with a questionable value.
            pub(super) fn doubts(&self) -> Vec<String> {
                specs().iter().filter_map(|spec| self.doubt(spec.name())).collect()
            }

            /// Returns the property `name`; `None` if it is no setting, or its default applies.
            fn read(&self, name: &str) -> Option<glib::Value> {
                match name {
                    $($($name => $crate::element::properties::Setting::read(&self.$field),)?)*
                    _ => None,
                }
            }
        }

        /// Returns the specifications of all properties.
        $vis fn specs() -> &'static [glib::ParamSpec] {
            static SPECS: std::sync::LazyLock<Vec<glib::ParamSpec>> = std::sync::LazyLock::new(|| {
                vec![$({
                    let default: $type = $crate::element::properties::settings!(@default $($default)?);
                    <$type as $crate::element::properties::Setting>::builder($name, &default)
                        .nick($nick)
                        .blurb($blurb)
                        $(.$more($($argument)?))+
                        .build()
                }),*]
            });
            &SPECS
        }
    };
}

pub(crate) use {enumerations, settings};

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn set(mut time: Time, ns: u64) -> Time {
        time.assign(&ns.to_value());
        time
    }

    #[test]
    fn seconds_typed_for_ns_are_doubted_and_a_time_that_cannot_be_is_not_used() {
        let (free, bound) = (Time::of(0), Time::of(60 * SECOND).at_least(SECOND / 10));
        for fine in [0, 1_000_000, 3600 * SECOND, u64::MAX] {
            assert_eq!((set(free, fine).doubt("x"), set(free, fine).ns()), (None, fine));
        }
        let doubt = set(free, 3600).doubt("retry-timeout").unwrap();
        assert!(
            doubt.starts_with("retry-timeout is 3600 ns; 3600 s is 3600000000000: "),
            "{doubt}"
        );
        assert_eq!(set(free, 3600).ns(), 3600, "it may be meant");
        let doubt = set(bound, 60).doubt("request-timeout").unwrap();
        assert!(
            doubt.starts_with("request-timeout is 60 ns; 60 s is 60000000000: ") && doubt.contains("at least 100 ms"),
            "{doubt}"
        );
        let doubt = set(bound, 50_000_000).doubt("request-timeout").unwrap();
        assert!(
            doubt.starts_with("request-timeout is 50 ms: ") && doubt.contains("default of 60 s"),
            "{doubt}"
        );
        for unusable in [0, 60, 50_000_000] {
            let time = set(bound, unusable);
            assert_eq!((time.ns(), time.doubt("x").is_some()), (60 * SECOND, true));
            assert_eq!(
                time.read().unwrap().get::<u64>(),
                Ok(unusable),
                "what was set is what is read"
            );
        }
        assert_eq!(set(bound, SECOND / 10).doubt("x"), None);
    }
}
