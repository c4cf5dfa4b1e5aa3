# packages: crewai litellm
# setting: base_url
# The history is the caller's, as its chats keep it.
from crewai import LLM, Agent

import talk

llm = LLM(model=f"openai/{talk.MODEL}", base_url=talk.BASE, api_key=talk.KEY, max_tokens=256)
agent = Agent(role="helper", goal=talk.SYSTEM, backstory=talk.SYSTEM, llm=llm, max_iter=2, verbose=False)
messages = []
for text in talk.ASKED:
    messages.append({"role": "user", "content": text})
    messages.append({"role": "assistant", "content": agent.kickoff(messages).raw})
