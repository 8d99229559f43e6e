use proptest::prelude::*;

use super::chain::MOST;
use super::*;

const BLOCK: usize = 64;

fn of(body: &str) -> Prompt {
    prompt(body.as_bytes(), "m", BLOCK)
}

/// How many blocks two bodies have in common at the beginning.
fn shared(a: &Prompt, b: &Prompt) -> usize {
    let pairs = a.blocks.iter().zip(&*b.blocks);
    pairs.take_while(|(a, b)| a == b).count()
}

fn words(seed: u64, count: u64) -> String {
    let word = |i: u64| format!("w{} ", (seed * 7919 + i * i) % 99_991);
    (0..count).map(word).collect()
}

fn user(text: &str) -> String {
    format!(r#"{{"role":"user","content":"{text}"}}"#)
}

#[test]
fn a_conversation_that_goes_on_shares_all_but_its_last_block() {
    let (first, answer, more) = (words(1, 200), words(2, 90), words(3, 50));
    let one = of(&format!(r#"{{"messages":[{}]}}"#, user(&first)));
    let two = of(&format!(
        r#"{{"messages":[{},{{"role":"assistant","content":"{answer}"}},{}]}}"#,
        user(&first),
        user(&more)
    ));
    assert!(one.blocks.len() > 15, "{}", one.blocks.len());
    assert_eq!(shared(&one, &two), one.blocks.len());
    assert!(two.bytes > one.bytes + answer.len() + more.len());
    // The same words said by another are another prompt.
    let system = of(&format!(
        r#"{{"messages":[{{"role":"system","content":"{first}"}}]}}"#
    ));
    assert_eq!(shared(&one, &system), 0);
}

#[test]
fn order_white_space_and_sampling_are_not_content() {
    let text = words(4, 100);
    let plain = of(&format!(
        r#"{{"model":"a","tools":[{{"name":"t","x":1}}],"messages":[{}],"temperature":0.1}}"#,
        user(&text)
    ));
    let other = of(&format!(
        "{{ \"seed\" : 7,\n \"messages\" : [ {{ \"content\" : \"{text}\" , \"role\" : \"user\" }} ] ,\t\"stream\":true, \"tools\" : [ {{ \"name\" : \"t\", \"x\" : 1 }} ] }}"
    ));
    assert!(!plain.blocks.is_empty());
    assert_eq!(plain, other);
}

#[test]
fn spaces_within_words_are_content() {
    let a = of(&format!(r#"{{"prompt":"a  b {}"}}"#, words(1, 40)));
    let b = of(&format!(r#"{{"prompt":"a b {}"}}"#, words(1, 40)));
    assert_eq!(shared(&a, &b), 0);
}

#[test]
fn what_engines_keep_apart_is_apart() {
    let text = words(5, 100);
    let body = |more: &str| format!(r#"{{{more}"messages":[{}]}}"#, user(&text));
    let plain = of(&body(""));
    for more in [
        r#""cache_salt":"s","#,
        r#""lora_path":"l","#,
        r#""tools":[{"name":"t"}],"#,
        r#""chat_template_kwargs":{"enable_thinking":false},"#,
    ] {
        let other = of(&body(more));
        assert_eq!(shared(&plain, &other), 0, "{more}");
    }
    let model = prompt(body("").as_bytes(), "other", BLOCK);
    assert_eq!(shared(&plain, &model), 0);
    // A null is as good as nothing.
    assert_eq!(plain, of(&body(r#""tools":null,"#)));
    // What only looks like a field is text.
    let inside = of(&body(r#""user":"\"cache_salt\":\"s\"","#));
    assert_eq!(plain, inside);
}

#[test]
fn token_ids_of_equal_length_are_told_apart() {
    let ids = |from: u32| {
        let ids: Vec<_> = (from..from + 400)
            .map(|i| (10_000 + i).to_string())
            .collect();
        format!(r#"{{"prompt":[{}]}}"#, ids.join(","))
    };
    let (a, b) = (of(&ids(0)), of(&ids(1)));
    assert_eq!(a.bytes, b.bytes);
    assert!(a.blocks.len() > 30);
    assert_eq!(shared(&a, &b), 0);
    assert_eq!(shared(&a, &of(&ids(0).replace(',', ", "))), a.blocks.len());
}

#[test]
fn a_picture_counts_as_a_word_and_tells_prompts_apart() {
    let picture = |byte: char| byte.to_string().repeat(100_000);
    let after = words(6, 60);
    let openai = |byte| {
        of(&format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}},{{"type":"text","text":"{after}"}}]}}]}}"#,
            picture(byte)
        ))
    };
    let anthropic = |byte| {
        of(&format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","data":"{}"}}}},{{"type":"text","text":"{after}"}}]}}]}}"#,
            picture(byte)
        ))
    };
    for (a, b) in [(openai('A'), openai('B')), (anthropic('A'), anthropic('B'))] {
        assert!(a.bytes < 2_000, "{}", a.bytes);
        assert_eq!(a.bytes, b.bytes);
        let common = shared(&a, &b);
        assert!(common < 4 && a.blocks.len() > common, "{common}");
    }
}

#[test]
fn every_kind_of_request_has_a_prompt() {
    let text = words(8, 50);
    for body in [
        format!(r#"{{"prompt":"{text}"}}"#),
        format!(r#"{{"prompt":["{text}","x"]}}"#),
        format!(r#"{{"input":"{text}"}}"#),
        format!(r#"{{"instructions":"{text}","input":[{}]}}"#, user("x")),
        format!(r#"{{"system":[{{"type":"text","text":"{text}"}}],"messages":[]}}"#),
    ] {
        assert!(of(&body).blocks.len() >= text.len() / BLOCK - 1, "{body}");
    }
    for body in ["", "[]", "null", "x", "{}", r#"{"model":"m"}"#] {
        assert_eq!(of(body), Prompt::default(), "{body}");
    }
}

#[test]
fn of_a_prompt_beyond_measure_the_beginning_is_told_apart() {
    let text = vec![b'x'; 40 * (MOST + 5)];
    let mut whole = Chain::new(32, text.len());
    whole.feed(&text);
    let mut pieces = Chain::new(32, 0);
    text.chunks(1_000).for_each(|piece| pieces.feed(piece));
    let whole = whole.finish();
    assert_eq!((whole.blocks.len(), whole.bytes), (MOST, text.len()));
    assert_eq!(whole, pieces.finish());
}

/// A request with these messages, each as its members; those of one in the order that `turn` says, with so much white space.
fn written(messages: &[Vec<(&str, String)>], turn: usize, space: &str) -> String {
    let message = |members: &Vec<(&str, String)>| {
        let mut members = members.clone();
        // What no template knows keeps its order.
        let known = members.iter().filter(|(name, _)| *name != "x").count();
        members[..known].rotate_left(turn % known.max(1));
        let members: Vec<_> = members
            .iter()
            .map(|(name, value)| format!("{space}\"{name}\"{space}:{space}{value}{space}"))
            .collect();
        format!("{space}{{{}}}{space}", members.join(","))
    };
    let messages: Vec<_> = messages.iter().map(message).collect();
    format!(
        "{space}{{{space}\"messages\"{space}:{space}[{}]{space},\"model\":1}}{space}",
        messages.join(",")
    )
}

prop_compose! {
    fn message()(
        content in "[a-c \\\\\"\n{}\\[\\]:,]{0,90}",
        parts in any::<bool>(),
        name in proptest::option::of("[a-z]{1,40}"),
        more in 0..3_usize,
    ) -> Vec<(&'static str, String)> {
        let content = serde_json::Value::from(content).to_string();
        let content = match parts {
            true => format!(r#"[{{"type":"text","text":{content}}},{{"n":[1,-2.5e3,null,[]]}}]"#),
            false => content,
        };
        let mut members = vec![("role", r#""user""#.to_owned())];
        members.extend(name.map(|name| ("name", format!("{name:?}"))));
        members.push(("content", content));
        members.extend((0..more).map(|n| ("x", n.to_string())));
        members
    }
}

proptest! {
    #[test]
    fn how_messages_are_written_does_not_matter(
        messages in proptest::collection::vec(message(), 1..6),
        turn in 0..4_usize,
        space in "[ \n\t]{0,2}",
        nth in any::<proptest::sample::Index>(),
    ) {
        let plain = prompt(written(&messages, 0, "").as_bytes(), "m", 32);
        prop_assert_eq!(&plain, &prompt(written(&messages, turn, &space).as_bytes(), "m", 32));
        // Nor is anything left out: each byte of the text is a byte of the body but for `]`, the other member and the braces about all.
        prop_assert_eq!(plain.bytes + "{],\"model\":1}".len(), written(&messages, 0, "").len());
        // Another speaker is another prompt from there on.
        let mut other = messages.clone();
        let nth = nth.index(messages.len());
        other[nth][0].1 = r#""tool""#.to_owned();
        let other = prompt(written(&other, turn, &space).as_bytes(), "m", 32);
        let before = prompt(written(&messages[..nth], 0, "").as_bytes(), "m", 32);
        let same = shared(&plain, &other) * 32;
        prop_assert!(same <= before.bytes + "{\"role\":\"".len() + 1, "{same} of {}", before.bytes);
        prop_assert!(shared(&plain, &before) + 1 >= before.blocks.len());
    }

    #[test]
    fn nothing_that_is_sent_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300), block in 0..9_000_usize) {
        prompt(&body, "m", block);
        let mut object = br#"{"messages":[{"role":"#.to_vec();
        object.extend(&body);
        prompt(&object, "m", block);
    }

    #[test]
    fn chains_do_not_depend_on_how_they_are_fed(text in proptest::collection::vec(any::<u8>(), 0..600), cuts in proptest::collection::vec(0..600_usize, 0..6)) {
        let mut whole = Chain::new(BLOCK, text.len());
        whole.feed(&text);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Chain::new(BLOCK, 0);
        let mut from = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            pieces.feed(&text[from..cut]);
            from = cut;
        }
        prop_assert_eq!(whole.finish(), pieces.finish());
    }
}
