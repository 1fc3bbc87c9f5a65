//! JSON in which an object is an object, and has no fields but those that are read.
//!
//! serde's derived code takes a list for a struct, its values by position: a client that sends one
//! has made a mistake, and would find out only when a field is added. And it passes over fields that
//! it does not know, unless each type says otherwise; types that the database is read into must not,
//! for an older or newer program may have written it. What is read through here takes objects only,
//! and refuses fields that a misspelling would make of others, at every depth that serde does not
//! read ahead (below the tag of an enum, and in a struct into which another is flattened).

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, Expected, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};

/// What serde's visitors for enums with their tag inside say that they expect; they take a list for
/// tag and content.
const TAGGED: &str = "internally tagged enum ";

/// Reads a document.
///
/// # Errors
/// When it is no JSON, or not of this type.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = T::deserialize(Strict(&mut json))?;
    json.end()?;
    Ok(read)
}

/// A deserializer, or what gives access to parts of one.
struct Strict<D>(D);

/// The names of a struct's fields, as serde has them.
type Fields = &'static [&'static str];

/// A visitor that refuses lists where an object is expected, and fields that the object cannot have.
struct Looking<V> {
    visitor: V,
    /// The fields of the struct, when it is one.
    fields: Option<Fields>,
}

impl<V> Looking<V> {
    fn at_any(visitor: V) -> Self {
        Self { visitor, fields: None }
    }

    fn at_struct(visitor: V, fields: Fields) -> Self {
        Self { visitor, fields: Some(fields) }
    }
}

struct Wanted<'a, V>(&'a V);

impl<'de, V: Visitor<'de>> Expected for Wanted<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

macro_rules! deserialize {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$name(Looking::at_any(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_option deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, Looking::at_any(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Looking::at_any(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(length, Looking::at_any(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, length, Looking::at_any(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Looking::at_struct(visitor, fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Looking::at_any(visitor))
    }
}

macro_rules! visit {
    ($($name:ident: $kind:ty),*) => {
        $(fn $name<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.visitor.$name(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Looking<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128,
        visit_f64: f64, visit_char: char, visit_str: &str, visit_borrowed_str: &'de str,
        visit_string: String, visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict(value))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Strict(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        let wanted = Wanted(&self.visitor);
        let expected: &dyn Expected = &wanted;
        if self.fields.is_some() || expected.to_string().starts_with(TAGGED) {
            return Err(A::Error::invalid_type(Unexpected::Seq, expected));
        }
        self.visitor.visit_seq(Strict(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        match self.fields {
            Some(fields) => self.visitor.visit_map(Known { map, fields }),
            None => self.visitor.visit_map(Strict(map)),
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Strict(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(value))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

/// An object of which each field has to be known.
struct Known<A> {
    map: A,
    fields: Fields,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Known<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.map.next_key_seed(Name { inner: seed, fields: self.fields })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.map.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.map.size_hint()
    }
}

/// The name of a field: what asks for it, what gives it, or what takes it.
struct Name<T> {
    inner: T,
    fields: Fields,
}

impl<T> Name<T> {
    fn checked<E: Error>(&self, name: &str) -> Result<(), E> {
        if self.fields.contains(&name) {
            return Ok(());
        }
        Err(E::unknown_field(name, self.fields))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Name<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Name { inner: name, fields: self.fields })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Name<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(Name { inner: visitor, fields: self.fields })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Name<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
        self.checked(name)?;
        self.inner.visit_str(name)
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<V::Value, E> {
        self.checked(name)?;
        self.inner.visit_borrowed_str(name)
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (name, content) = self.0.variant_seed(seed)?;
        Ok((name, Strict(content)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(length, Looking::at_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Looking::at_struct(visitor, fields))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        name: String,
        pair: (u8, u8),
        inner: Option<Inner>,
        list: Vec<Inner>,
        map: BTreeMap<String, Inner>,
        wrapped: Vec<Wrapped>,
        tagged: Vec<Tagged>,
        any: serde_json::Value,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        n: u8,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Renamed {
        n: u8,
        #[serde(alias = "old")]
        new: u8,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Wrapped {
        Unit,
        New(Inner),
        Struct { n: u8 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "type")]
    enum Tagged {
        Struct { n: u8 },
    }

    #[test]
    fn objects_are_read_as_serde_reads_them() {
        let text = r#"{"name":"é","pair":[1,2],"inner":{"n":1},"list":[{"n":2}],
            "map":{"a":{"n":3}},"wrapped":["Unit",{"New":{"n":4}},{"Struct":{"n":5}}],
            "tagged":[{"type":"Struct","n":6}],"any":[[1],{"a":null}]}"#;
        let read: Outer = from_slice(text.as_bytes()).unwrap();
        assert_eq!(read, serde_json::from_str(text).unwrap());
        assert_eq!(read.wrapped.len(), 3);
        assert!(from_slice::<Outer>(br#"{"inner":null}"#).unwrap().inner.is_none());
        assert!(from_slice::<Outer>(b"{} {}").is_err(), "one document");
    }

    #[test]
    fn a_field_is_known_at_any_depth() {
        for text in [
            r#"{"inner":{"n":1,"m":2}}"#,
            r#"{"list":[{"n":2,"m":2}]}"#,
            r#"{"map":{"a":{"m":2,"n":3}}}"#,
            r#"{"wrapped":[{"New":{"n":4,"m":2}}]}"#,
            r#"{"wrapped":[{"Struct":{"n":5,"m":2}}]}"#,
        ] {
            serde_json::from_str::<Outer>(text).unwrap();
            let error = from_slice::<Outer>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("unknown field `m`, expected `n`"), "{text}: {error}");
        }
        let renamed = br#"{"n":1,"old":2}"#;
        assert_eq!(from_slice::<Renamed>(renamed).unwrap(), Renamed { n: 1, new: 2 });
        // A name that had to be put together from its parts.
        assert!(from_slice::<Renamed>(br#"{"n":1,"n\u0065w":2}"#).is_ok());
    }

    #[test]
    fn a_list_is_no_object_at_any_depth() {
        for (text, expected) in [
            (r#"["a"]"#, "struct Outer"),
            (r#"{"inner":[1]}"#, "struct Inner"),
            (r#"{"list":[[1]]}"#, "struct Inner"),
            (r#"{"map":{"a":[1]}}"#, "struct Inner"),
            (r#"{"wrapped":[{"New":[1]}]}"#, "struct Inner"),
            (r#"{"wrapped":[{"Struct":[1]}]}"#, "struct variant Wrapped::Struct"),
            (r#"{"tagged":[["Struct",6]]}"#, "enum Tagged"),
        ] {
            serde_json::from_str::<Outer>(text).unwrap();
            let error = from_slice::<Outer>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("invalid type: sequence"), "{text}: {error}");
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
