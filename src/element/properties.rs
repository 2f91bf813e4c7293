//! One table for each element: what is a property, where it is kept, its default and its specification.
//!
//! `settings!` makes of a table the struct of the settings, its defaults, the specifications, and reading and writing by name.
//! It knows nothing of the elements. What a property needs beyond that (another meaning of NULL, a value that depends on
//! another) is written in the `set` and `get` of the element's own settings.

use gst::glib;
use gst::prelude::*;

/// A type that a property can have, and how it is kept as a setting.
pub(crate) trait Setting: Sized {
    /// Builds its specification.
    type Builder<'a>
    where
        Self: 'a;

    /// Begins a specification with that default.
    fn builder<'a>(name: &'a str, default: &'a Self) -> Self::Builder<'a>;

    /// Keeps the value. GObject has checked its type and its range.
    fn assign(&mut self, value: &glib::Value);

    /// Returns the value; `None` if the user has set none, so that the specification's default applies.
    fn read(&self) -> Option<glib::Value>;
}

/// Text without which there is another way. A launch line cannot write NULL, so an empty one is NULL.
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

/// Text that may be empty. NULL is the same.
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

/// Numbers and flags; as an `Option`, those of which it matters whether the user has set them.
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

/// Makes properties of enumerations that derive `glib::Enum`.
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

/// Makes the settings of an element of a table with a row for each property, in the order of the documentation:
///
/// ```text
/// "name": TYPE as field = DEFAULT, "Nick", "Blurb", .more_of_the_specification();
/// ```
///
/// A property without `as field = DEFAULT` is specified only: the element itself answers for it.
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
            /// Sets the property of that name; one that is no setting changes nothing.
            fn assign(&mut self, name: &str, value: &glib::Value) {
                match name {
                    $($($name => $crate::element::properties::Setting::assign(&mut self.$field, value),)?)*
                    _ => {}
                }
            }

            /// Returns the property of that name; `None` if it is no setting, or its default applies.
            fn read(&self, name: &str) -> Option<glib::Value> {
                match name {
                    $($($name => $crate::element::properties::Setting::read(&self.$field),)?)*
                    _ => None,
                }
            }
        }

        /// The specifications of all properties.
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
