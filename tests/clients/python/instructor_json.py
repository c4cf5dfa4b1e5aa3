# packages: instructor openai
# setting: base_url
# Every answer is an object of a type, by `response_format`.
import instructor
from openai import OpenAI
from pydantic import BaseModel, Field

import talk


class Answer(BaseModel):
    number: int = Field(ge=0, le=999)


client = instructor.from_openai(
    OpenAI(base_url=talk.BASE, api_key=talk.KEY), mode=instructor.Mode.JSON_SCHEMA
)
messages = [{"role": "system", "content": talk.SYSTEM}]
for text in talk.ASKED:
    messages.append({"role": "user", "content": text})
    answer, raw = client.chat.completions.create_with_completion(
        model=talk.MODEL, messages=messages, response_model=Answer, max_tokens=96, max_retries=1
    )
    messages.append({"role": "assistant", "content": raw.choices[0].message.content})
