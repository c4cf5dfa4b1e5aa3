# packages: openai
# setting: base_url
# The server keeps the conversation: each request names the response before it.
import json

from openai import OpenAI

import talk

client = OpenAI(base_url=talk.BASE, api_key=talk.KEY)
tools = [{"type": "function", "name": "add", "description": "Adds", "parameters": talk.SCHEMA, "strict": False}]
previous = None
for turn, text in enumerate(talk.ASKED):
    items = [{"role": "user", "content": text}]
    for call in range(talk.MOST_CALLS):
        response = client.responses.create(
            model=talk.MODEL,
            instructions=talk.SYSTEM,
            input=items,
            tools=tools,
            tool_choice="required" if (turn, call) == (0, 0) else "auto",
            max_output_tokens=256,
            previous_response_id=previous,
        )
        assert client.responses.retrieve(response.id).output_text == response.output_text
        previous = response.id
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            break
        answers = [(called.call_id, talk.result(json.loads(called.arguments))) for called in calls]
        items = [{"type": "function_call_output", "call_id": id, "output": said} for id, said in answers]
