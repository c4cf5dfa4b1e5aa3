"""The conversations that make_fixtures.py renders with every template they fit."""

import random

THINKING = ["thinking_tools", "nano"]
ALL = ["thinking_tools", "plain_blocks", "nano"]
NOTHING = dict(depth=1e-7, flag=True, nothing=None)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says what the weather is like & how warm <it> is; 'quoted', \"twice\".",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Zürich, 東京, …\n\tor another\\one \u007f\u0001"},
                "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 1},
                "threshold": {"type": "number", "default": 0.5, "examples": [1.0, 1e-7, 1e20, -0.0, 1e16, 1e15]},
            },
            "required": ["city"],
            "additionalProperties": False,
            "examples": [],
            "definitions": {},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


def user(content):
    return {"role": "user", "content": content}


def system(content):
    return {"role": "system", "content": content}


def assistant(content="", **more):
    return {"role": "assistant", "content": content, **more}


def tool(content, call="call_1"):
    return {"role": "tool", "tool_call_id": call, "content": content}


def call(name, arguments, id="call_1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def floats():
    draw = random.Random(3)
    drawn = [draw.uniform(-1, 1) * 10 ** draw.randrange(-12, 25) for _ in range(60)]
    drawn += [2.0**exponent for exponent in range(-80, 90, 4)]  # next to these, shortest and nearest differ
    drawn += [draw.randrange(10**14, 10**15) + 0.25 for _ in range(8)]  # halfway between two shortest ones
    return drawn + [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, 123456789012345678, 2**63, -(2**63)]


CASES = [
    dict(name="one question", templates=ALL, messages=[user("What is 7 x 8?")], kwargs=NOTHING),
    dict(
        name="system and several turns",
        templates=ALL,
        messages=[
            system("  You help with homework.\n"),
            user("What is 7 x 8?"),
            assistant("56"),
            user("And plus 1?"),
            assistant("57."),
            user("Thanks!"),
        ],
        kwargs=NOTHING,
    ),
    dict(
        name="no generation prompt",
        templates=ALL,
        messages=[user("Hi"), assistant("Hello\n\n")],
        add_generation_prompt=False,
        kwargs=NOTHING,
    ),
    dict(
        name="a system message in the middle",
        templates=THINKING,
        messages=[user("Hi"), assistant("Hello"), system("Now speak French."), user("Hi again")],
    ),
    dict(
        name="tools offered",
        templates=ALL,
        messages=[system("Be exact."), user("Is it raining in Zürich?")],
        tools=[WEATHER, CLOCK],
        kwargs=NOTHING,
    ),
    dict(name="tools without a system message", templates=ALL, messages=[user("When?")], tools=[CLOCK], kwargs=NOTHING),
    dict(
        name="tool calls with objects",
        templates=ALL,
        messages=[
            user("Rain in Zürich and 東京?"),
            assistant(
                "I'll look.",
                tool_calls=[
                    call("get_weather", {"city": "Zürich", "days": 2, "ratio": 1.0}),
                    call("get_weather", {"city": "東京", "note": "a<b & 'c' \"d\"\n", "none": None, "yes": True}, "call_2"),
                ],
            ),
            tool('{"rain": true}'),
            tool("no rain <at all> & dry", "call_2"),
        ],
        tools=[WEATHER],
        kwargs=dict(depth=12.0, flag=False, nothing=None),
    ),
    dict(
        name="tool calls with text",
        templates=["thinking_tools", "nano"],
        messages=[
            user("Rain?"),
            assistant(tool_calls=[call("get_weather", '{"city":"Bern",  "days": 1}')]),
            tool("dry"),
            assistant("It is dry."),
            user("And tomorrow?"),
            assistant(tool_calls=[call("now", {})]),
        ],
        tools=[WEATHER, CLOCK],
    ),
    dict(
        name="bare tool calls and a result first",
        templates=THINKING,
        messages=[
            tool("left over"),
            user("Go"),
            assistant(tool_calls=[{"name": "now", "arguments": {"zone": "UTC"}}]),
            tool("12:00"),
        ],
    ),
    dict(
        name="thinking in a field",
        templates=THINKING,
        messages=[
            user("2+2?"),
            assistant("4", reasoning_content="\nTwo and two.\n\nEasy.\n"),
            user("3+3?"),
            assistant("6", reasoning_content="Three and three."),
        ],
        add_generation_prompt=False,
    ),
    dict(
        name="thinking in the content",
        templates=THINKING,
        messages=[
            user("2+2?"),
            assistant("<think>\nTwo and two.\n</think>\n\n4"),
            user("3+3?"),
            assistant("<think>\n\nThree.\n</think>\n\n6", tool_calls=[call("now", {})]),
            tool("12:00"),
        ],
    ),
    dict(
        name="thinking between tool calls",
        templates=THINKING,
        messages=[
            user("Look it up"),
            assistant(reasoning_content="First the time.", tool_calls=[call("now", {})]),
            tool("12:00"),
            assistant("Now the weather.", reasoning_content="Then the rest.", tool_calls=[call("get_weather", {"city": "X"})]),
            tool("sun"),
        ],
        tools=[WEATHER, CLOCK],
        kwargs=dict(enable_thinking=True),
    ),
    dict(
        name="thinking switched off",
        templates=THINKING,
        messages=[user("2+2?"), assistant("4", reasoning_content="Two and two."), user("3+3?")],
        kwargs=dict(enable_thinking=False),
    ),
    dict(
        name="earlier thinking kept",
        templates=THINKING,
        messages=[user("2+2?"), assistant("4", reasoning_content="Two and two."), user("3+3?")],
        kwargs=dict(preserve_thinking=True),
    ),
    dict(
        name="a user who writes markers",
        templates=ALL,
        messages=[
            user("<tool_response>\nnot from a tool\n</tool_response>"),
            assistant("</think> is a marker, <|im_end|> too"),
            user("{{ messages }} {% if x %} {# no #} \u2028 \u00a0 \U0001f469\u200d\U0001f467 e\u0301"),
        ],
        kwargs=NOTHING,
    ),
    dict(
        name="numbers of every size",
        templates=["thinking_tools"],
        messages=[user("Add"), assistant(tool_calls=[call("sum", {"of": floats()})])],
    ),
    dict(name="empty content", templates=ALL, messages=[user(""), assistant(""), user("\n")], kwargs=NOTHING),
]
