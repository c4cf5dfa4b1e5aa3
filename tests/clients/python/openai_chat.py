# packages: openai
# setting: base_url
import json

from openai import OpenAI

import talk

client = OpenAI(base_url=talk.BASE, api_key=talk.KEY)
function = {"name": "add", "description": "Adds", "parameters": talk.SCHEMA}
tools = [{"type": "function", "function": function}]
messages = [{"role": "system", "content": talk.SYSTEM}]
for turn, text in enumerate(talk.ASKED):
    messages.append({"role": "user", "content": text})
    for call in range(talk.MOST_CALLS):
        choice = "required" if (turn, call) == (0, 0) else "auto"
        with client.chat.completions.stream(
            model=talk.MODEL, messages=messages, tools=tools, tool_choice=choice, max_tokens=256
        ) as stream:
            message = stream.get_final_completion().choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            break
        for called in message.tool_calls:
            answer = talk.result(json.loads(called.function.arguments))
            messages.append({"role": "tool", "tool_call_id": called.id, "content": answer})
