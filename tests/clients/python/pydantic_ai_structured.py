# packages: pydantic-ai-slim[openai,anthropic]
# setting: base_url
# Every answer is an object of a type, by a tool that must be called.
from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import talk


class Answer(BaseModel):
    number: int = Field(ge=0, le=999)


model = OpenAIChatModel(talk.MODEL, provider=OpenAIProvider(base_url=talk.BASE, api_key=talk.KEY))
agent = Agent(model, output_type=Answer, instructions=talk.SYSTEM, model_settings={"max_tokens": 96})
history = []
for text in talk.ASKED:
    history = agent.run_sync(text, message_history=history).all_messages()
