# packages: openai
# setting: base_url
import json

from openai import OpenAI

import talk

client = OpenAI(base_url=talk.BASE, api_key=talk.KEY)
tools = [{"type": "function", "name": "add", "description": "Adds", "parameters": talk.SCHEMA, "strict": False}]
items = []
for turn, text in enumerate(talk.ASKED):
    items.append({"role": "user", "content": text})
    for call in range(talk.MOST_CALLS):
        with client.responses.stream(
            model=talk.MODEL,
            instructions=talk.SYSTEM,
            input=items,
            tools=tools,
            tool_choice="required" if (turn, call) == (0, 0) else "auto",
            max_output_tokens=256,
            store=False,
        ) as stream:
            response = stream.get_final_response()
        items += [item.model_dump(exclude_none=True) for item in response.output]
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            break
        for called in calls:
            answer = talk.result(json.loads(called.arguments))
            items.append({"type": "function_call_output", "call_id": called.call_id, "output": answer})
