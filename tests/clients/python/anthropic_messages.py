# packages: anthropic
# setting: base_url (without /v1)
from anthropic import Anthropic

import talk

client = Anthropic(base_url=talk.ROOT, api_key=talk.KEY)
tools = [{"name": "add", "description": "Adds", "input_schema": talk.SCHEMA}]
messages = []
for turn, text in enumerate(talk.ASKED):
    messages.append({"role": "user", "content": text})
    for call in range(talk.MOST_CALLS):
        asked = dict(model=talk.MODEL, system=talk.SYSTEM, messages=messages, tools=tools)
        assert client.messages.count_tokens(**asked).input_tokens > 0
        choice = {"type": "any" if (turn, call) == (0, 0) else "auto"}
        with client.messages.stream(tool_choice=choice, max_tokens=256, **asked) as stream:
            message = stream.get_final_message()
        messages.append({"role": "assistant", "content": message.content})
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            break
        results = [
            {"type": "tool_result", "tool_use_id": called.id, "content": talk.result(called.input)} for called in calls
        ]
        messages.append({"role": "user", "content": results})
