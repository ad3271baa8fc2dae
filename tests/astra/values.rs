//! How each side reads and writes a value, and where flash values are.

use hyper_session::Session;

use crate::go_peer::{NAME, World, astra_jar, astra_json};
use crate::support::Jar;

#[test]
fn what_go_stored_is_read_with_the_types_of_rust() {
    let world = World::beside();
    let json = r#"{"big":9007199254740993,"exp":1e3,"f":0.5,"id":123,"list":[1,"a",null],"map":{"a":{"b":1}},"neg":-7,"none":null,"point":123.0,"text":"\u003cb\u003e\u2028é","yes":true}"#;
    let (status, _) = world.visit(&mut astra_jar(json), |session| {
        assert_eq!(session.get_i64("id")?, Some(123));
        assert_eq!(session.get_i64("point")?, Some(123), "Go's GetInt on 123.0");
        assert_eq!(session.get::<u32>("exp")?, Some(1_000));
        assert_eq!(session.get::<f64>("id")?, Some(123.0));
        assert_eq!(session.get::<f64>("f")?, Some(0.5));
        assert_eq!(session.get_i64("neg")?, Some(-7));
        assert_eq!(session.get_i64("big")?, Some(9_007_199_254_740_993), "the digits that are there");
        assert_eq!(session.get_bool("yes")?, Some(true));
        assert_eq!(session.get_str("text")?.as_deref(), Some("<b>\u{2028}é"));
        assert_eq!(session.get::<(u8, String, Option<u8>)>("list")?, Some((1, "a".to_owned(), None)));
        let map = session.get::<std::collections::HashMap<String, serde_json::Value>>("map")?;
        assert_eq!(map.unwrap()["a"]["b"], 1);
        // Where Astra's getters give "" and 0, these say that it is something else.
        assert!(session.has("none") && session.get::<Option<u8>>("none")? == Some(None));
        assert!(session.get_str("none").unwrap_err().to_string().contains("null"));
        assert!(session.get_i64("f").unwrap_err().to_string().contains("a float"));
        assert!(session.get_i64("text").is_err());
        assert_eq!(session.get_i64("missing")?, None);
        Ok(())
    });
    assert_eq!(status, 200);
}

#[test]
fn saving_one_value_leaves_the_others_as_go_wrote_them() {
    let world = World::beside();
    let json = r#"{"":[],"a":null,"big":9007199254740993,"f":622728.3173637044,"h":"\u003c\u0026","huge":1e+21,"m":{},"u":18446744073709551615}"#;
    let mut jar = astra_jar(json);
    world.visit(&mut jar, |session| session.set("z", 1));
    let expected = json.replacen("615}", "615,\"z\":1}", 1);
    assert_eq!(astra_json(&jar).unwrap(), expected);
}

fn take(session: &Session) -> Result<(), hyper_session::Error> {
    assert_eq!(session.flash::<String>("success")?.as_deref(), Some("Saved."));
    assert_eq!(session.flash::<String>("success")?, None);
    Ok(())
}

// `Session.Flash` of Astra takes a plain value; the same key is used to set one.
#[test]
fn flash_values_are_where_astra_has_them() {
    for world in [World::beside(), World::migrating(1_000)] {
        // Set by Go, seen by Rust.
        let mut jar = astra_jar(r#"{"success":"Saved.","user":"ada"}"#);
        world.visit(&mut jar, take);
        let values = world.values(&jar);
        assert_eq!(values.keys().collect::<Vec<_>>(), ["user"]);
    }
    // Set by Rust, seen by Go.
    let world = World::beside();
    let mut jar = Jar::new();
    world.visit(&mut jar, |session| {
        session.set_flash("success", "Saved.")?;
        assert_eq!(session.peek::<String>("success")?.as_deref(), Some("Saved."));
        assert!(session.set_flash("\u{1}x", 1).unwrap_err().is_value(), "still reserved");
        Ok(())
    });
    assert_eq!(astra_json(&jar).unwrap(), r#"{"success":"Saved."}"#);
    world.visit(&mut jar, take);
    assert_eq!(jar.get(NAME), None);
}

#[test]
fn without_astra_flash_values_have_a_namespace_of_their_own() {
    let world = World::native();
    let mut jar = Jar::new();
    world.visit(&mut jar, |session| {
        session.set("success", 1)?;
        session.set_flash("success", "Saved.")?;
        assert_eq!(session.get_i64("success")?, Some(1));
        Ok(())
    });
    world.visit(&mut jar, take);
    assert_eq!(world.values(&jar)["success"], 1);
}
