//! [`document!`](crate::document!): one declaration per field.

/// Declares a type that is read from a document.
///
/// A struct's doc comments become the descriptions of the JSON Schema; a field without `= default` must be given,
/// unless its type can be absent (`Option`). `with` adds values that are read from several fields of the same table
/// by their own [`Document`](crate::document::Document). `later` names fields this version refuses by name.
///
/// ```
/// # use tollgate_sdk::document;
/// document! {
///     /// Something that is offered.
///     pub struct Offer (default) {
///         /// How much of the traffic it gets.
///         #[range(0..=1000)]
///         weight: u16 = 100,
///         /// Who looks after it.
///         #[example = "team-a"]
///         owner: Option<String>,
///     }
///     later ["queue"]
/// }
/// document! {
///     /// How much is told.
///     pub enum Level {
///         /// Only what failed.
///         Error = "error",
///         /// What a service does.
///         Info = "info",
///     }
///     later ["trace"]
/// }
/// ```
///
/// Flags: `(default)` also implements `Default`; `(checked)` calls your
/// `fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self` on what was read, for what concerns several
/// fields; `(custom)` leaves [`FromNode`](crate::document::FromNode) to be written by hand, for types with a second
/// form. `default` goes before the other. An enum's flag `("type")` accepts `{ type = "word" }` too.
/// `missing` after an enum is what to say when the word is required and not given.
/// Attributes of a field stand in this order: doc, `written`, `example`, `range`.
#[macro_export]
macro_rules! document {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident $(($($flag:ident)*))? {$(
            $(#[doc = $field_doc:literal])*
            $(#[written = $written:literal])?
            $(#[example = $example:tt])?
            $(#[range($min:literal..=$max:literal)])?
            $field:ident: $ty:ty $(= $default:expr)?
        ),* $(,)?}
        $(with {$(
            $(#[doc = $with_doc:literal])*
            $with:ident: $with_ty:ty
        ),* $(,)?})?
        $(later [$($later:literal),* $(,)?])?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $($(#[doc = $field_doc])* pub $field: $ty,)*
            $($($(#[doc = $with_doc])* pub $with: $with_ty,)*)?
        }

        impl $crate::document::Document for $name {
            fn doc() -> String {
                $crate::document::prose(concat!($($doc, "\n"),*))
            }

            fn fields() -> Vec<$crate::document::Field> {
                #[allow(unused_mut)]
                let mut fields = vec![$(
                    $crate::document!(@declared $field [$($written)?] [$($example)?] [$($min, $max)?] $ty $(= $default)?)
                        .describe(concat!($($field_doc, "\n"),*)),
                )*];
                $($(fields.extend(<$with_ty as $crate::document::Document>::fields());)*)?
                fields
            }

            fn names() -> Vec<&'static str> {
                #[allow(unused_mut)]
                let mut names = vec![$($crate::document!(@name $field $($written)?)),*];
                $($(names.extend(<$with_ty as $crate::document::Document>::names());)*)?
                names
            }

            fn later() -> Vec<&'static str> {
                vec![$($($later),*)?]
            }

            fn constraints() -> $crate::document::JsonTable {
                #[allow(unused_mut)]
                let mut constraints = $crate::document::JsonTable::new();
                $($(constraints.extend(<$with_ty as $crate::document::Document>::constraints());)*)?
                constraints
            }

            fn read_fields(
                table: $crate::document::Table<'_>,
                at: &$crate::document::At<'_>,
                r: &mut $crate::document::Reading<'_>,
            ) -> Option<Self> {
                // Every field is read before the first missing one ends it.
                $(let $field = table.field(
                    $crate::document!(@declared $field [$($written)?] [$($example)?] [$($min, $max)?] $ty $(= $default)?),
                    at,
                    r,
                );)*
                $($(let $with = <$with_ty as $crate::document::Document>::read_fields(table, at, r);)*)?
                Some(Self { $($field: $field?,)* $($($with: $with?,)*)? })
            }

            fn value_fields(&self) -> $crate::document::JsonTable {
                let mut fields = $crate::document::JsonTable::new();
                $(fields.insert(
                    $crate::document!(@name $field $($written)?).to_owned(),
                    $crate::document::FromNode::value(&self.$field),
                );)*
                $($(fields.extend($crate::document::Document::value_fields(&self.$with));)*)?
                fields.retain(|_, value| !value.is_null());
                fields
            }
        }

        $crate::document!(@node $name [$($($flag)*)?]);
        $crate::document!(@default $name [$($($flag)*)?] $($field: $ty $(= $default)?;)*);
    };

    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident $(($tag:literal))? {$(
            $(#[doc = $word_doc:literal])*
            $variant:ident = $word:literal
        ),* $(,)?}
        $(later [$($later:literal),* $(,)?])?
        $(missing $missing:literal)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[doc = $word_doc])* $variant,)*
        }

        impl $name {
            const WORDS: $crate::document::Words = $crate::document::Words {
                known: &[$(($word, concat!($($word_doc, "\n"),*))),*],
                later: &[$($($later),*)?],
                tag: $crate::document!(@option $($tag)?),
            };

            /// The word for it in a document.
            $vis fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::document::FromNode for $name {
            fn read(
                node: &$crate::document::Node,
                at: &$crate::document::At<'_>,
                r: &mut $crate::document::Reading<'_>,
            ) -> Option<Self> {
                let index = Self::WORDS.read(node, at, r)?;
                [$(Self::$variant),*].get(index).copied()
            }

            fn schema() -> $crate::document::Json {
                Self::WORDS.schema()
            }

            fn value(&self) -> $crate::document::Json {
                $crate::document::Json::from(self.word())
            }

            fn example() -> $crate::document::Json {
                Self::WORDS.example()
            }

            fn missing() -> Option<&'static str> {
                $crate::document!(@option $($missing)?)
            }
        }
    };

    (@declared $field:ident [$($written:literal)?] [$($example:tt)?] [$($min:literal, $max:literal)?] $ty:ty $(= $default:expr)?) => {
        $crate::document::Declared::<$ty> {
            name: $crate::document!(@name $field $($written)?),
            default: $crate::document!(@make $ty $(= $default)?),
            range: $crate::document!(@option $(($min, $max))?),
            example: $crate::document!(@option $(|| $crate::document::json!($example))?),
        }
    };

    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $written:literal) => { $written };
    (@option) => { None };
    (@option $value:expr) => { Some($value) };
    (@make $ty:ty) => { None };
    (@make $ty:ty = $default:expr) => { Some(|| -> $ty { $default }) };
    (@value $ty:ty) => { <$ty as Default>::default() };
    (@value $ty:ty = $default:expr) => { $default };

    (@node $name:ident []) => { $crate::document_from_node!($name); };
    (@node $name:ident [default]) => { $crate::document_from_node!($name); };
    (@node $name:ident [$(default)? checked]) => { $crate::document_from_node!($name check); };
    (@node $name:ident [$(default)? custom]) => {};

    (@default $name:ident [default $($flag:ident)*] $($field:ident: $ty:ty $(= $default:expr)?;)*) => {
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::document!(@value $ty $(= $default)?)),* }
            }
        }
    };
    (@default $name:ident $($rest:tt)*) => {};
}

/// Makes a [`Document`](crate::document::Document) readable as a table.
#[doc(hidden)]
#[macro_export]
macro_rules! document_from_node {
    ($name:ident $($check:ident)?) => {
        impl $crate::document::FromNode for $name {
            fn read(
                node: &$crate::document::Node,
                at: &$crate::document::At<'_>,
                r: &mut $crate::document::Reading<'_>,
            ) -> Option<Self> {
                let read = <Self as $crate::document::Document>::read(node, at, r);
                $(let read = read.map(|read| read.$check(node, at, r));)?
                read
            }

            fn schema() -> $crate::document::Json {
                <Self as $crate::document::Document>::schema()
            }

            fn value(&self) -> $crate::document::Json {
                $crate::document::Document::value_fields(self).into()
            }

            fn example() -> $crate::document::Json {
                <Self as $crate::document::Document>::example()
            }

            fn fields() -> Vec<$crate::document::Field> {
                <Self as $crate::document::Document>::fields()
            }
        }
    };
}
