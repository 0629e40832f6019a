//! Why a stream does not go on elsewhere.

/// Why a stream does not go on elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The engine tells no ids on this path (`/v1/responses` and others; `/v1/messages`, unless by text).
    Route,
    /// Several answers, or several prompts.
    Choices,
    /// Log probabilities are told of each token.
    Logprobs,
    /// Its output is guided by a grammar, whose state the ids do not give.
    Guided,
    /// Tools may be called: the rest would be text without the engine's parser.
    Tools,
    /// Reasoning is under way, likewise.
    Reasoning,
    /// A seeded sampler would begin anew.
    Seed,
    /// A penalty or a bound that counts the tokens of the answer alone.
    Penalty,
    /// Stop strings: the engine holds text back that the ids alone do not give.
    Stop,
    /// Images or sound, which the ids do not hold.
    Media,
    /// The response is stored, or must not be computed twice.
    Stored,
    /// Another field for which the rest might differ.
    Field,
    /// More tokens than are kept of one request.
    TokensMax,
    /// More bytes than are kept of all requests.
    BytesMax,
    /// The engine told no ids.
    NoIds,
    /// The replica gives no ids of the prompt, or makes another one of it.
    Prompt,
    /// Within a token's text, or within an event that is partly out.
    Boundary,
    /// The answer may fill the context, whose length no replica tells.
    Context,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Route,
        Self::Choices,
        Self::Logprobs,
        Self::Guided,
        Self::Tools,
        Self::Reasoning,
        Self::Seed,
        Self::Penalty,
        Self::Stop,
        Self::Media,
        Self::Stored,
        Self::Field,
        Self::TokensMax,
        Self::BytesMax,
        Self::NoIds,
        Self::Prompt,
        Self::Boundary,
        Self::Context,
    ];

    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Choices => "choices",
            Self::Logprobs => "logprobs",
            Self::Guided => "guided",
            Self::Tools => "tools",
            Self::Reasoning => "reasoning",
            Self::Seed => "seed",
            Self::Penalty => "penalty",
            Self::Stop => "stop",
            Self::Media => "media",
            Self::Stored => "stored",
            Self::Field => "field",
            Self::TokensMax => "tokens_max",
            Self::BytesMax => "bytes_max",
            Self::NoIds => "no_ids",
            Self::Prompt => "prompt",
            Self::Boundary => "boundary",
            Self::Context => "context",
        }
    }
}
