# packages: crewai litellm
# setting: base_url
# conversations: 5
# Each task is a conversation of its own.
from crewai import LLM, Agent, Crew, Task

import talk

llm = LLM(model=f"openai/{talk.MODEL}", base_url=talk.BASE, api_key=talk.KEY, max_tokens=256)
agent = Agent(role="helper", goal=talk.SYSTEM, backstory=talk.SYSTEM, llm=llm, max_iter=2, verbose=False)
for text in talk.ASKED:
    Crew(agents=[agent], tasks=[Task(description=text, expected_output="a number", agent=agent)]).kickoff()
