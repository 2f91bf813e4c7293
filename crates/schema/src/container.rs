//! Container formats: names in the metadata, extensions, content types. PURE.

/// A container format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// Adobe Flash Video 10.1, with the enhanced-RTMP extension.
    Flv,
    /// MPEG-2 transport stream, ISO/IEC 13818-1; packets of 188, 192 or 204 bytes.
    MpegTs,
    /// Fragmented MP4, ISO/IEC 14496-12.
    Fmp4,
    /// Matroska, RFC 9559.
    Matroska,
    /// WebM: Matroska with the `DocType` `webm`.
    WebM,
    /// Any other stream, cut by time and size alone.
    Raw,
}

impl Container {
    /// Returns the value of the metadata key `container`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flv => "flv",
            Self::MpegTs => "mpegts",
            Self::Fmp4 => "fmp4",
            Self::Matroska => "matroska",
            Self::WebM => "webm",
            Self::Raw => "raw",
        }
    }

    /// Every container.
    pub const ALL: [Self; 6] = [Self::Flv, Self::MpegTs, Self::Fmp4, Self::Matroska, Self::WebM, Self::Raw];

    /// Returns the container with this [`Container::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|container| container.name() == name)
    }

    /// Returns the container with this [`Container::extension`].
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|container| container.extension() == extension)
    }

    /// Returns the value of the placeholder `{ext}` of object names.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Flv => "flv",
            Self::MpegTs => "ts",
            Self::Fmp4 => "mp4",
            Self::Matroska => "mkv",
            Self::WebM => "webm",
            Self::Raw => "bin",
        }
    }

    /// Returns the Content-Type of its objects; `audio_only` selects the `audio/` twin.
    pub const fn content_type(self, audio_only: bool) -> &'static str {
        match (self, audio_only) {
            (Self::Flv, false) => "video/x-flv",
            (Self::Flv, true) => "audio/x-flv",
            (Self::MpegTs, false) => "video/mp2t",
            (Self::MpegTs, true) => "audio/mp2t",
            (Self::Fmp4, false) => "video/mp4",
            (Self::Fmp4, true) => "audio/mp4",
            (Self::Matroska, false) => "video/x-matroska",
            (Self::Matroska, true) => "audio/x-matroska",
            (Self::WebM, false) => "video/webm",
            (Self::WebM, true) => "audio/webm",
            (Self::Raw, _) => "application/octet-stream",
        }
    }
}
